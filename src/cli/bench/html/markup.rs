//! Text with tags, in which nothing from outside can be a tag.
//!
//! Names of elements and attributes are literals, content and values are escaped on their way in,
//! and what is opened is closed: whatever a report holds, the page is well-formed.

use std::fmt::{Display, Write as _};

#[derive(Debug, Default)]
pub struct Markup(String);

/// Names and values; `&[("class", &"quiet"), ("x", &1.5)]`.
pub type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Markup {
    pub fn new() -> Markup {
        Markup::default()
    }

    /// As it stands: only what this program brings along.
    pub fn raw(&mut self, markup: &'static str) {
        self.0 += markup;
    }

    pub fn text(&mut self, text: &str) {
        self.0 += &escaped(text);
    }

    pub fn add(&mut self, other: &Markup) {
        self.0 += &other.0;
    }

    pub fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        content: impl FnOnce(&mut Markup),
    ) {
        self.tag(name, attributes);
        self.0.push('>');
        content(self);
        self.0 += "</";
        self.0 += name;
        self.0.push('>');
        // What flows beside text would be parted from it by a new line.
        if !INLINE.contains(&name) {
            self.0.push('\n');
        }
    }

    /// A name, which may be broken after its underscores.
    pub fn name(&mut self, name: &str) {
        for (index, part) in name.split_inclusive('_').enumerate() {
            if index > 0 {
                self.empty("wbr", &[]);
            }
            self.text(part);
        }
    }

    /// An element with nothing but text in it.
    pub fn words(&mut self, name: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(name, attributes, |inside| inside.text(text));
    }

    /// An element that has no content.
    pub fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes);
        self.0 += "/>";
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn tag(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.0.push('<');
        self.0 += name;
        for (name, value) in attributes {
            let value = escaped(&value.to_string());
            write!(self.0, " {name}=\"{value}\"").expect("a string takes all");
        }
    }
}

const INLINE: &[&str] = &["a", "b", "code", "small", "span", "strong", "tspan", "text"];

/// The text with what could end it, or begin a tag, spelled out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // HTML knows no other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_a_tag() {
        let mut page = Markup::new();
        page.element("p", &[("title", &"\"><script>"), ("x", &1.5)], |p| {
            p.text("<script>&'\0");
            p.words("b", &[], "</p>");
            p.empty("br", &[]);
        });
        assert_eq!(
            page.finish(),
            "<p title=\"&quot;&gt;&lt;script&gt;\" x=\"1.5\">&lt;script&gt;&amp;&#39;\u{fffd}\
             <b>&lt;/p&gt;</b><br/></p>\n"
        );
    }
}
