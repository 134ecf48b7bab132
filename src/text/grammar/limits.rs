//! What a schema may ask of the library: refused here is what would cost it memory or time without
//! end, and what it would get wrong.
//!
//! Where schemas are combined (`allOf`, `anyOf` or a `$ref` beside other keywords) the library
//! copies one for each alternative of the other, so that a short text becomes gigabytes. What it
//! would copy is counted on shapes that share their parts.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use serde_json::{Map, Number, Value};

use super::shape::{Choice, Decimal, Key, MULTIPLE_MAX, PART_BYTES, Part, Shape};
use super::{GrammarError, Schema, place};

/// Bytes that the library may copy while it combines the schemas of a request. With what else is
/// counted as bytes this is a second of its time.
const COPIED_BYTES_MAX: u64 = 64 << 20;
/// Pairs of schemas that are combined. The library gives up at 50,000.
const COMBINED_MAX: usize = 50_000;
/// How deep in each other. The library gives up there.
const COMBINED_DEPTH_MAX: usize = 128;
/// Of an object; each pair of them is tried: 32 take 14 ms, 128 take 400.
const PATTERNS_MAX: usize = 32;
const PATTERNS_OF_REQUEST_MAX: usize = 64;
/// Of an object that may be left out. Of 600 the first token of a reply is too much work already.
const OPTIONAL_MAX: usize = 500;
/// Beside `minProperties`: each of them has a rule of all others. Of 48 the first token is too much.
const OPTIONAL_OF_SOME_MAX: usize = 40;
/// Beside `maxProperties`: each has a rule of its own.
const OPTIONAL_OF_FEW_MAX: usize = 200;
/// Patterns, formats and bounds of length that one string has to keep. Eight are refused by the
/// library as too much, 30 keep it busy for hours.
const TOGETHER_MAX: usize = 6;
/// The library keeps numbers as floating point, which has no odd ones beyond.
const WHOLE_MAX: u128 = 1 << 53;

/// What is counted for a pair of patterns of an object that are combined.
const PATTERN_PAIR_BYTES: u64 = 16 << 10;
/// And for a pattern of a string that is combined with others.
const PATTERN_BYTES: u64 = 8 << 10;

const BOUNDS: &[&str] = &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
/// Keywords that are schemas which stand beside the others.
const APPLICATORS: &[&str] = &["const", "enum", "allOf", "anyOf", "oneOf", "$ref"];
const SIMPLE: &[&str] = &[
    "type",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "minItems",
    "maxItems",
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "multipleOf",
];

/// Whether the library may have these schemas.
pub fn check<'a>(schemas: impl Iterator<Item = &'a Schema>) -> Result<(), GrammarError> {
    let mut spent = Spent::default();
    for schema in schemas {
        let root = &schema.value;
        let mut reader = Reader { root, defined: HashMap::new(), path: Vec::new(), spent };
        if let Err(Refused { place, reason }) = reader.schema(root) {
            let field = schema.field.clone();
            return Err(GrammarError::Schema { field, place, reason });
        }
        spent = reader.spent;
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Spent {
    copied: u64,
    combined: usize,
    patterns: usize,
}

struct Refused {
    place: String,
    reason: String,
}

struct Reader<'a> {
    root: &'a Value,
    /// What references lead to; `None` while it is read.
    defined: HashMap<&'a str, Option<Shape<'a>>>,
    /// The way to what is read.
    path: Vec<String>,
    spent: Spent,
}

impl<'a> Reader<'a> {
    fn schema(&mut self, schema: &'a Value) -> Result<Shape<'a>, Refused> {
        let fields = match schema {
            Value::Bool(true) => return Ok(Shape::Any),
            Value::Object(fields) => fields,
            // The library says what is wrong with others.
            _ => return Ok(Shape::Never),
        };
        let mut whole = self.simple(fields)?;
        for keyword in fields.keys().filter(|keyword| APPLICATORS.contains(&keyword.as_str())) {
            let applied = self.applied(keyword, &fields[keyword])?;
            for shape in applied {
                whole = self.combined(whole, shape, 0)?;
            }
        }
        Ok(whole)
    }

    /// What a keyword asks for, all of it.
    fn applied(&mut self, keyword: &str, value: &'a Value) -> Result<Vec<Shape<'a>>, Refused> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match keyword {
            "$ref" => Ok(vec![self.at(keyword, |reader| reader.reference(value))?]),
            "const" => Ok(vec![self.at(keyword, |reader| reader.constant(value))?]),
            "enum" => {
                let options = self.each(keyword, list, Reader::constant)?;
                Ok(vec![Choice::of(options, false)])
            }
            "allOf" => self.each(keyword, list, Reader::schema),
            _ => {
                let options = self.each(keyword, list, Reader::schema)?;
                let choice = Choice::of(options, keyword == "oneOf");
                self.compare(&choice)?;
                Ok(vec![choice])
            }
        }
    }

    /// The keywords that describe a value by itself.
    fn simple(&mut self, fields: &'a Map<String, Value>) -> Result<Shape<'a>, Refused> {
        self.bounds(fields)?;
        self.types(fields)?;
        if !fields.keys().any(|key| SIMPLE.contains(&key.as_str()) || BOUNDS.contains(&&**key)) {
            return Ok(Shape::Any);
        }
        let has = |key: &str| fields.contains_key(key);
        let texts = ["pattern", "format"].map(|key| fields.get(key).map_or(0, bytes));
        let mut part = Part::new(PART_BYTES + texts.iter().sum::<u64>());
        part.together = texts.iter().filter(|bytes| **bytes > 0).count()
            + usize::from(has("minLength") || has("maxLength"));
        part.has_least = fields.get("minProperties").and_then(Value::as_u64).unwrap_or(0) > 0;
        part.has_most = has("maxProperties");
        part.multiple = self.multiple(fields)?;
        let required = fields.get("required").and_then(Value::as_array).into_iter().flatten();
        part.required = required.filter_map(Value::as_str).collect();
        part.bytes += part.required.iter().map(|name| name.len() as u64 + 32).sum::<u64>();
        self.lists(fields, &mut part)?;
        self.objects(fields, &mut part)?;
        self.sound(&part)?;
        Ok(Shape::One(Rc::new(part)))
    }

    fn lists(
        &mut self,
        fields: &'a Map<String, Value>,
        part: &mut Part<'a>,
    ) -> Result<(), Refused> {
        for keyword in ["prefixItems", "items"] {
            let Some(Value::Array(list)) = fields.get(keyword) else { continue };
            for (index, shape) in self.each(keyword, list, Reader::schema)?.into_iter().enumerate()
            {
                part.hold(Key::Item(index), shape);
            }
        }
        for keyword in ["items", "additionalItems"] {
            let Some(value) = fields.get(keyword).filter(|value| !value.is_array()) else {
                continue;
            };
            part.items = self.at(keyword, |reader| reader.schema(value))?;
            part.bytes += part.items.bytes();
        }
        Ok(())
    }

    fn objects(
        &mut self,
        fields: &'a Map<String, Value>,
        part: &mut Part<'a>,
    ) -> Result<(), Refused> {
        if let Some(value) = fields.get("additionalProperties") {
            part.properties = self.at("additionalProperties", |reader| reader.schema(value))?;
            part.bytes += part.properties.bytes();
        }
        if let Some(Value::Object(patterns)) = fields.get("patternProperties") {
            self.spent.patterns += patterns.len();
            if patterns.len() > PATTERNS_MAX || self.spent.patterns > PATTERNS_OF_REQUEST_MAX {
                let reason = format!(
                    "at most {PATTERNS_MAX} patterns of properties in an object, and \
                     {PATTERNS_OF_REQUEST_MAX} in a request"
                );
                return self.at("patternProperties", |reader| reader.refuse(reason));
            }
            for (pattern, value) in patterns {
                let shape = self.at("patternProperties", |reader| {
                    reader.at(pattern, |reader| reader.schema(value))
                })?;
                part.hold(Key::Pattern(pattern), shape);
            }
        }
        // A property keeps to the pattern that it fits as well.
        let pattern = part.members.values().max_by_key(|shape| shape.bytes()).cloned();
        let pattern = pattern.filter(|_| fields.contains_key("patternProperties"));
        if let Some(Value::Object(properties)) = fields.get("properties") {
            for (name, value) in properties {
                let mut shape =
                    self.at("properties", |reader| reader.at(name, |reader| reader.schema(value)))?;
                if let Some(pattern) = &pattern {
                    self.copy(pattern.bytes())?;
                    shape = self.combined(shape, pattern.clone(), 0)?;
                }
                part.hold(Key::Name(name), shape);
            }
        }
        Ok(())
    }

    /// What a reference leads to, read once.
    fn reference(&mut self, value: &'a Value) -> Result<Shape<'a>, Refused> {
        let Some(reference) = value.as_str() else { return Ok(Shape::Never) };
        if !self.defined.contains_key(reference) {
            self.defined.insert(reference, None);
            // The library says which references lead nowhere.
            let Some(target) = self.target(reference) else { return Ok(Shape::Never) };
            let there = reference.split('/').skip(1).filter(|step| !step.is_empty());
            let there = there.map(|step| format!("/{}", place::escaped(step)));
            let here = std::mem::replace(&mut self.path, there.collect());
            let shape = self.schema(target)?;
            self.path = here;
            self.copy(shape.bytes())?;
            self.defined.insert(reference, Some(shape));
        }
        Ok(Shape::Reference(reference))
    }

    /// As the library finds it: a step is a name as it is.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        if matches!(reference, "#" | "#/") {
            return Some(self.root);
        }
        let mut steps = reference.strip_prefix("#/")?.split('/');
        steps.try_fold(self.root, |value, step| match value {
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            value => value.get(step),
        })
    }

    fn constant(&mut self, value: &'a Value) -> Result<Shape<'a>, Refused> {
        let mut part = Part::new(PART_BYTES);
        match value {
            Value::Number(number) => self.exact(number)?,
            Value::String(text) => {
                part.bytes += text.len() as u64;
                part.together = 1;
            }
            Value::Array(items) => {
                part.items = Shape::Never;
                for (index, item) in items.iter().enumerate() {
                    let shape = self.at(&index.to_string(), |reader| reader.constant(item))?;
                    part.hold(Key::Item(index), shape);
                }
            }
            Value::Object(fields) => {
                part.properties = Shape::Never;
                for (name, value) in fields {
                    let shape = self.at(name, |reader| reader.constant(value))?;
                    part.hold(Key::Name(name), shape);
                    part.required.insert(name);
                }
            }
            Value::Null | Value::Bool(_) => (),
        }
        Ok(Shape::One(Rc::new(part)))
    }

    /// What keeps to both.
    fn combined(
        &mut self,
        one: Shape<'a>,
        other: Shape<'a>,
        depth: usize,
    ) -> Result<Shape<'a>, Refused> {
        let (one, other) = match (one, other) {
            (Shape::Any, shape) | (shape, Shape::Any) => return Ok(shape),
            (Shape::Never, _) | (_, Shape::Never) => return Ok(Shape::Never),
            both => both,
        };
        self.spent.combined += 1;
        if self.spent.combined > COMBINED_MAX || depth > COMBINED_DEPTH_MAX {
            return self.refuse("too many schemas are combined with each other".to_owned());
        }
        match (one, other) {
            (Shape::Any | Shape::Never, shape) | (shape, Shape::Any | Shape::Never) => Ok(shape),
            (Shape::Reference(reference), shape) | (shape, Shape::Reference(reference)) => {
                // The library says which references lead in a circle.
                let Some(Some(target)) = self.defined.get(reference).cloned() else {
                    return Ok(Shape::Never);
                };
                self.copy(target.bytes())?;
                self.combined(target, shape, depth + 1)
            }
            (Shape::Choice(choice), shape) | (shape, Shape::Choice(choice)) => {
                let mut options = Vec::new();
                for option in &choice.options {
                    self.copy(shape.bytes())?;
                    options.push(self.combined(option.clone(), shape.clone(), depth + 1)?);
                }
                let choice = Choice::of(options, choice.is_exclusive);
                self.compare(&choice)?;
                Ok(choice)
            }
            (Shape::One(one), Shape::One(other)) => self.both(&one, &other, depth),
        }
    }

    fn both(
        &mut self,
        one: &Part<'a>,
        other: &Part<'a>,
        depth: usize,
    ) -> Result<Shape<'a>, Refused> {
        let mut both = Part::new(one.own_bytes() + other.own_bytes());
        both.together = one.together + other.together;
        both.has_least = one.has_least || other.has_least;
        both.has_most = one.has_most || other.has_most;
        both.required = one.required.union(&other.required).copied().collect();
        both.multiple = match (one.multiple, other.multiple) {
            (Some(one), Some(other)) => Some(self.common(one, other)?),
            (one, other) => one.or(other),
        };
        let keys: BTreeSet<Key> = one.members.keys().chain(other.members.keys()).copied().collect();
        for key in keys {
            let [mine, theirs] = [one, other].map(|part| part.member(key));
            // What is found for a member of the one is copied for it.
            let found = if one.members.contains_key(&key) { &theirs } else { &mine };
            self.copy(found.bytes())?;
            let shape = self.combined(mine, theirs, depth + 1)?;
            both.hold(key, shape);
        }
        both.items = self.combined(one.items.clone(), other.items.clone(), depth + 1)?;
        both.properties =
            self.combined(one.properties.clone(), other.properties.clone(), depth + 1)?;
        let patterns = both.count(|key| matches!(key, Key::Pattern(_))) as u64;
        self.copy(patterns * patterns / 2 * PATTERN_PAIR_BYTES)?;
        if both.together > 1 {
            self.copy(both.together as u64 * PATTERN_BYTES)?;
        }
        self.sound(&both)?;
        Ok(Shape::One(Rc::new(both)))
    }

    /// Whether the library does with a part what it should.
    fn sound(&mut self, part: &Part<'a>) -> Result<(), Refused> {
        if part.together > TOGETHER_MAX {
            return self.refuse(format!(
                "at most {TOGETHER_MAX} patterns, formats and lengths for the same text"
            ));
        }
        let optional =
            part.count(|key| matches!(key, Key::Name(name) if !part.required.contains(name)));
        for (is_limited, most, beside) in [
            (true, OPTIONAL_MAX, ""),
            (part.has_least, OPTIONAL_OF_SOME_MAX, " beside minProperties"),
            (part.has_most, OPTIONAL_OF_FEW_MAX, " beside maxProperties"),
        ] {
            if is_limited && optional > most {
                return self.refuse(format!(
                    "{optional} properties that are not required; at most {most}{beside}"
                ));
            }
        }
        // Each that is only required is made of what any property is.
        let unnamed =
            part.required.iter().filter(|name| !part.members.contains_key(&Key::Name(name)));
        self.copy(unnamed.count() as u64 * part.member(Key::Name("")).bytes())
    }

    fn copy(&mut self, bytes: u64) -> Result<(), Refused> {
        self.spent.copied = self.spent.copied.saturating_add(bytes);
        match self.spent.copied > COPIED_BYTES_MAX {
            true => self.refuse("too much is combined with each other".to_owned()),
            false => Ok(()),
        }
    }

    /// The library compares each schema of a `oneOf` with each other.
    fn compare(&mut self, shape: &Shape<'a>) -> Result<(), Refused> {
        match shape {
            Shape::Choice(choice) if choice.is_exclusive => {
                self.copy(choice.leaves.saturating_mul(choice.leaves) / 4)
            }
            _ => Ok(()),
        }
    }

    /// A type that is named again is read again.
    fn types(&mut self, fields: &Map<String, Value>) -> Result<(), Refused> {
        let Some(Value::Array(types)) = fields.get("type") else { return Ok(()) };
        let different: BTreeSet<_> = types.iter().filter_map(Value::as_str).collect();
        match different.len() == types.len() {
            true => Ok(()),
            false => {
                self.at("type", |reader| reader.refuse("each type may be named once".to_owned()))
            }
        }
    }

    fn bounds(&mut self, fields: &Map<String, Value>) -> Result<(), Refused> {
        for keyword in BOUNDS {
            let Some(Value::Number(number)) = fields.get(*keyword) else { continue };
            self.at(keyword, |reader| reader.exact(number))?;
        }
        Ok(())
    }

    fn exact(&mut self, number: &Number) -> Result<(), Refused> {
        let whole = number.as_i128().map(i128::unsigned_abs);
        let is_exact = match whole {
            Some(whole) => whole <= WHOLE_MAX,
            None => number.as_f64().is_some_and(|number| number.abs() <= WHOLE_MAX as f64),
        };
        match is_exact {
            true => Ok(()),
            false => self.refuse("a number beyond 2^53 would not be kept to exactly".to_owned()),
        }
    }

    fn multiple(&mut self, fields: &Map<String, Value>) -> Result<Option<Decimal>, Refused> {
        let Some(number) = fields.get("multipleOf").and_then(Value::as_f64) else {
            return Ok(None);
        };
        match Decimal::of(number.abs()).filter(Decimal::is_small) {
            Some(multiple) => Ok(Some(multiple)),
            None => self.at("multipleOf", |reader| reader.refuse(multiple_refused())),
        }
    }

    fn common(&mut self, one: Decimal, other: Decimal) -> Result<Decimal, Refused> {
        match one.common(other).filter(Decimal::is_small) {
            Some(multiple) => Ok(multiple),
            None => self.refuse(multiple_refused()),
        }
    }

    fn each(
        &mut self,
        keyword: &str,
        list: &'a [Value],
        read: impl Fn(&mut Reader<'a>, &'a Value) -> Result<Shape<'a>, Refused>,
    ) -> Result<Vec<Shape<'a>>, Refused> {
        self.at(keyword, |reader| {
            let all = list.iter().enumerate();
            all.map(|(index, value)| reader.at(&index.to_string(), |reader| read(reader, value)))
                .collect()
        })
    }

    /// Reads what is one step further in. An error ends all: the way stays.
    fn at<T>(
        &mut self,
        step: &str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.path.push(format!("/{}", place::escaped(step)));
        let found = read(self)?;
        self.path.pop();
        Ok(found)
    }

    fn refuse<T>(&self, reason: String) -> Result<T, Refused> {
        let mut told = String::new();
        for step in &self.path {
            if told.len() > place::PLACE_BYTES_MAX {
                break;
            }
            told.push_str(step);
        }
        Err(Refused { place: told, reason })
    }
}

fn multiple_refused() -> String {
    format!(
        "a multiple is supported of at most {MULTIPLE_MAX}, without its point, or a power of ten"
    )
}

/// Of a text.
fn bytes(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.len() as u64)
}
