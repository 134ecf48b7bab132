//! What a schema is to the library, as far as it is copied: shapes that share their parts.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a part of a schema takes beside its texts.
pub const PART_BYTES: u64 = 200;
/// Of `multipleOf`, without its decimal point, unless it is a power of ten. Each remainder is a
/// state: those of 65,537 take half a second, 60 MB, and 40 ms when a reply begins.
pub const MULTIPLE_MAX: u128 = 10_000;

/// What the library makes of a schema, as far as it is copied.
#[derive(Clone)]
pub enum Shape<'a> {
    Any,
    Never,
    One(Rc<Part<'a>>),
    Choice(Rc<Choice<'a>>),
    Reference(&'a str),
}

pub struct Choice<'a> {
    pub options: Vec<Shape<'a>>,
    /// Each pair of them is compared.
    pub is_exclusive: bool,
    pub bytes: u64,
    pub leaves: u64,
}

/// Of any type: types that do not fit together only make less of it.
#[derive(Clone)]
pub struct Part<'a> {
    /// With its members.
    pub bytes: u64,
    pub members: BTreeMap<Key<'a>, Shape<'a>>,
    /// Of what is no member.
    pub items: Shape<'a>,
    pub properties: Shape<'a>,
    pub required: BTreeSet<&'a str>,
    pub has_least: bool,
    pub has_most: bool,
    /// Patterns of a text.
    pub together: usize,
    pub multiple: Option<Decimal>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    Name(&'a str),
    Pattern(&'a str),
    Item(usize),
}

/// `digits` · 10^-`exponent`.
#[derive(Clone, Copy)]
pub struct Decimal {
    pub digits: u128,
    pub exponent: u32,
}

impl Shape<'_> {
    pub fn bytes(&self) -> u64 {
        match self {
            Shape::Any | Shape::Never | Shape::Reference(_) => PART_BYTES,
            Shape::One(part) => part.bytes,
            Shape::Choice(choice) => choice.bytes,
        }
    }

    pub fn leaves(&self) -> u64 {
        match self {
            Shape::Choice(choice) => choice.leaves,
            _ => 1,
        }
    }
}

impl<'a> Choice<'a> {
    pub fn of(options: Vec<Shape<'a>>, is_exclusive: bool) -> Shape<'a> {
        let sum = |of: fn(&Shape<'a>) -> u64| {
            options.iter().map(of).fold(PART_BYTES, u64::saturating_add)
        };
        let (bytes, leaves) = (sum(Shape::bytes), sum(Shape::leaves) - PART_BYTES);
        match options.as_slice() {
            _ if !is_exclusive && options.iter().any(|option| matches!(option, Shape::Any)) => {
                Shape::Any
            }
            [] => Shape::Never,
            [one] => one.clone(),
            _ => Shape::Choice(Rc::new(Choice { options, is_exclusive, bytes, leaves })),
        }
    }
}

impl<'a> Part<'a> {
    pub fn new(bytes: u64) -> Part<'a> {
        Part {
            bytes,
            members: BTreeMap::new(),
            items: Shape::Any,
            properties: Shape::Any,
            required: BTreeSet::new(),
            has_least: false,
            has_most: false,
            together: 0,
            multiple: None,
        }
    }

    pub fn hold(&mut self, key: Key<'a>, shape: Shape<'a>) {
        self.bytes = self.bytes.saturating_add(key.bytes() + shape.bytes());
        self.members.insert(key, shape);
    }

    /// Without its members.
    pub fn own_bytes(&self) -> u64 {
        let members = self.members.iter().map(|(key, shape)| key.bytes() + shape.bytes());
        self.bytes - members.sum::<u64>().min(self.bytes)
    }

    /// What a member is, or what it would be if it were there.
    pub fn member(&self, key: Key<'a>) -> Shape<'a> {
        let rest = || match key {
            Key::Item(_) => self.items.clone(),
            Key::Pattern(_) => self.properties.clone(),
            Key::Name(_) => {
                let patterns = self.members.range(Key::Pattern("")..Key::Item(0));
                let pattern = patterns.map(|(_, shape)| shape).max_by_key(|shape| shape.bytes());
                pattern.unwrap_or(&self.properties).clone()
            }
        };
        self.members.get(&key).cloned().unwrap_or_else(rest)
    }

    pub fn count(&self, is_counted: impl Fn(&Key<'a>) -> bool) -> usize {
        self.members.keys().filter(|key| is_counted(key)).count()
    }
}

impl Key<'_> {
    pub fn bytes(&self) -> u64 {
        match self {
            Key::Name(name) | Key::Pattern(name) => name.len() as u64,
            Key::Item(_) => 0,
        }
    }
}

impl Decimal {
    /// As the library reads it. `None` if it has too many digits.
    pub fn of(number: f64) -> Option<Decimal> {
        const DIGITS_MAX: u32 = 9;
        let mut number = number;
        let mut exponent = 0;
        while number.fract() != 0.0 {
            if exponent == DIGITS_MAX {
                return None;
            }
            number *= 10.0;
            exponent += 1;
        }
        (number <= f64::from(u32::MAX)).then_some(Decimal { digits: number as u128, exponent })
    }

    /// What is a multiple of both. The library has 32 bits for what it does on the way.
    pub fn common(self, other: Decimal) -> Option<Decimal> {
        let exponent = self.exponent.max(other.exponent);
        let [one, two] = [self, other].map(|of| of.digits * 10u128.pow(exponent - of.exponent));
        if one * two > u128::from(u32::MAX) {
            return None;
        }
        let (mut divisor, mut rest) = (one, two);
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        Some(Decimal { digits: (one * two).checked_div(divisor).unwrap_or(0), exponent })
    }

    pub fn is_small(&self) -> bool {
        let mut digits = self.digits;
        while digits > 0 && digits.is_multiple_of(10) {
            digits /= 10;
        }
        self.digits <= MULTIPLE_MAX || digits == 1
    }
}
