//! Tables on stdout: a line of names, then rows whose columns stand below each other.

/// A column's name and how it stands.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    align: Align,
    /// Longer texts lose their middle.
    width_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Column {
    /// Words, with at most so many characters.
    pub const fn words(name: &'static str, width_max: usize) -> Column {
        Column { name, align: Align::Left, width_max }
    }

    pub const fn number(name: &'static str) -> Column {
        Column { name, align: Align::Right, width_max: usize::MAX }
    }
}

/// Rows as long as there are columns; no table without rows.
pub fn table<const N: usize>(columns: [Column; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let names = columns.map(|column| column.name.to_owned());
    let mut lines: Vec<[String; N]> = vec![names];
    lines.extend(rows.iter().map(|row| {
        let mut cells = row.clone();
        for (cell, column) in cells.iter_mut().zip(columns) {
            *cell = shortened(cell, column.width_max);
        }
        cells
    }));
    let widths: Vec<usize> = (0..N)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .zip(columns.iter().zip(&widths))
            .map(|(cell, (column, width))| match column.align {
                Align::Left => format!("{cell:width$}"),
                Align::Right => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Begin and end of a text that is too long: of a path both say more than its middle.
pub fn shortened(text: &str, chars_max: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= chars_max {
        return text.to_owned();
    }
    let kept = chars_max.saturating_sub(1);
    let tail = kept / 2;
    let head = kept - tail;
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

/// A number with its thousands apart: `8,192`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let columns = [Column::words("NAME", 9), Column::number("TOKENS"), Column::words("AT", 9)];
        let row = |name: &str, number: usize, at: &str| {
            [name.to_owned(), thousands(number), at.to_owned()]
        };
        let rows =
            [row("a", 12, ""), row("über/lange/Pfade", 1_234_567, "now"), row("ccc", 999, "x")];
        expect![[r#"
            NAME          TOKENS  AT
            a                 12
            über…fade  1,234,567  now
            ccc              999  x
        "#]]
        .assert_eq(&table(columns, &rows));
        assert_eq!(table(columns, &[]), "");
    }
}
