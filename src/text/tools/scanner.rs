//! Reads the JSON object of a call character by character, to tell as soon as possible that it is none.

use std::ops::Range;

/// As deep as `serde_json` follows.
const NESTING_MAX: usize = 127;

/// The names that calls may have.
#[derive(Clone, Debug)]
pub enum Names {
    Any,
    These(Vec<String>),
}

/// An object with a name and arguments, and perhaps the type of all calls, in any order. Of the
/// arguments the structure is checked; whether they are JSON to the last number is for a parser.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// What is open at this place, the object itself first.
    open: Vec<Open>,
    expects: Expects,
    /// Of the key or the value at the top that is under way.
    word: String,
    /// The field at the top whose value comes.
    field: Option<Field>,
    has_type: bool,
    name: Option<String>,
    arguments: Option<Range<usize>>,
    bytes: usize,
}

/// What a character means.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    More,
    /// The object ends with this character.
    Complete,
    /// It cannot be a call any more.
    Broken,
}

/// A whole object.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    pub name: String,
    /// Where they are, in bytes from the object's beginning.
    pub arguments: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Object,
    List,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Value,
    ItemOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    MoreOf(Word),
    Escaped(Word),
    /// Of a number, or of `true` and its like.
    MoreOfLiteral,
}

/// A string is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Key,
    Value,
}

/// Of the object itself; it has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Type,
    Name,
    Arguments,
}

const FIELDS: [(&str, Field); 4] = [
    ("type", Field::Type),
    ("name", Field::Name),
    ("arguments", Field::Arguments),
    ("parameters", Field::Arguments),
];

impl Names {
    fn has(&self, name: &str) -> bool {
        match self {
            Names::Any => !name.is_empty(),
            Names::These(names) => names.iter().any(|known| known == name),
        }
    }

    fn may_begin(&self, beginning: &str) -> bool {
        match self {
            Names::Any => true,
            Names::These(names) => names.iter().any(|known| known.starts_with(beginning)),
        }
    }
}

impl Scanner {
    /// Takes the next character. After `Complete` and `Broken` there is nothing more to take.
    pub fn push(&mut self, c: char, names: &Names) -> Step {
        let is_taken = self.take(c, names).is_some();
        self.bytes += c.len_utf8();
        match is_taken {
            false => Step::Broken,
            true if self.open.is_empty() => Step::Complete,
            true => Step::More,
        }
    }

    /// What was complete.
    pub fn finish(self) -> Option<Scanned> {
        Some(Scanned { name: self.name?, arguments: self.arguments? })
    }

    /// `None` if it cannot be there.
    fn take(&mut self, c: char, names: &Names) -> Option<()> {
        match self.expects {
            Expects::MoreOf(word) => return self.take_of_word(c, word, names),
            Expects::Escaped(word) => {
                self.expects = Expects::MoreOf(word);
                return r#""\/bfnrtu"#.contains(c).then_some(());
            }
            Expects::MoreOfLiteral if c.is_ascii_alphanumeric() || "+-.".contains(c) => {
                return Some(());
            }
            Expects::MoreOfLiteral => self.expects = Expects::CommaOrEnd,
            _ => (),
        }
        if " \n\r\t".contains(c) {
            return Some(());
        }
        match (self.expects, c) {
            (Expects::Value | Expects::ItemOrEnd, _) if c != ']' => self.begin_value(c),
            (Expects::ItemOrEnd | Expects::CommaOrEnd, ']') => self.close(Open::List),
            (Expects::KeyOrEnd | Expects::CommaOrEnd, '}') => self.close(Open::Object),
            (Expects::Key | Expects::KeyOrEnd, '"') => self.begin_word(Word::Key),
            (Expects::Colon, ':') => self.expect(Expects::Value),
            (Expects::CommaOrEnd, ',') => match self.open.last()? {
                Open::Object => self.expect(Expects::Key),
                Open::List => self.expect(Expects::Value),
            },
            _ => None,
        }
    }

    fn expect(&mut self, expects: Expects) -> Option<()> {
        self.expects = expects;
        Some(())
    }

    fn is_top(&self) -> bool {
        self.open.len() == 1
    }

    fn begin_value(&mut self, c: char) -> Option<()> {
        match (self.field.filter(|_| self.is_top()), c) {
            (Some(Field::Type | Field::Name), '"') | (Some(Field::Arguments), '{') => (),
            (Some(_), _) => return None,
            (None, _) => (),
        }
        match c {
            '"' => self.begin_word(Word::Value),
            '{' if self.is_top() => {
                self.arguments = Some(self.bytes..self.bytes);
                self.begin(Open::Object)
            }
            '{' => self.begin(Open::Object),
            // The whole is an object.
            _ if self.open.is_empty() => None,
            '[' => self.begin(Open::List),
            '-' | '0'..='9' | 't' | 'f' | 'n' => self.expect(Expects::MoreOfLiteral),
            _ => None,
        }
    }

    fn begin(&mut self, open: Open) -> Option<()> {
        self.open.push(open);
        self.expects = match open {
            Open::Object => Expects::KeyOrEnd,
            Open::List => Expects::ItemOrEnd,
        };
        (self.open.len() <= NESTING_MAX).then_some(())
    }

    fn close(&mut self, open: Open) -> Option<()> {
        if self.open.pop()? != open {
            return None;
        }
        if self.is_top() {
            let end = self.bytes + 1;
            self.arguments = self.arguments.take().map(|arguments| arguments.start..end);
        }
        let is_whole = self.name.is_some() && self.arguments.is_some();
        self.expects = Expects::CommaOrEnd;
        (!self.open.is_empty() || is_whole).then_some(())
    }

    fn begin_word(&mut self, word: Word) -> Option<()> {
        self.word.clear();
        self.expect(Expects::MoreOf(word)).filter(|()| !self.open.is_empty())
    }

    fn take_of_word(&mut self, c: char, word: Word, names: &Names) -> Option<()> {
        match c {
            '"' => return self.end_word(word, names),
            // No field and no tool is called so.
            '\\' if self.is_top() => return None,
            '\\' => return self.expect(Expects::Escaped(word)),
            '\0'..' ' => return None,
            _ if !self.is_top() => return Some(()),
            _ => self.word.push(c),
        }
        let may_become = |field: &str| field.starts_with(self.word.as_str());
        let may_be = match (word, self.field) {
            (Word::Key, _) => FIELDS.iter().any(|(field, _)| may_become(field)),
            (Word::Value, Some(Field::Type)) => may_become("function"),
            (Word::Value, _) => names.may_begin(&self.word),
        };
        may_be.then_some(())
    }

    fn end_word(&mut self, word: Word, names: &Names) -> Option<()> {
        match word {
            Word::Key => self.expects = Expects::Colon,
            Word::Value => self.expects = Expects::CommaOrEnd,
        }
        if !self.is_top() {
            return Some(());
        }
        match (word, self.field) {
            (Word::Key, _) => {
                let (_, field) = FIELDS.iter().find(|(field, _)| *field == self.word)?;
                self.field = Some(*field);
                let is_twice = match field {
                    Field::Type => std::mem::replace(&mut self.has_type, true),
                    Field::Name => self.name.is_some(),
                    Field::Arguments => self.arguments.is_some(),
                };
                (!is_twice).then_some(())
            }
            (Word::Value, Some(Field::Type)) => (self.word == "function").then_some(()),
            (Word::Value, _) => {
                self.name = Some(self.word.clone()).filter(|name| names.has(name));
                self.name.is_some().then_some(())
            }
        }
    }
}
