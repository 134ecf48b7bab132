//! The trace that a request belongs to, as W3C's Trace Context says it in `traceparent`.
//!
//! `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`: version, trace, caller's span, flags.
//! <https://www.w3.org/TR/trace-context/#traceparent-header>

use axum::http::HeaderMap;

const TRACEPARENT: &str = "traceparent";
const VERSION: usize = 2;
const TRACE_ID: usize = 32;
const PARENT_ID: usize = 16;
const FLAGS: usize = 2;

/// What of it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    pub trace_id: &'a str,
    /// The span of the caller.
    pub parent_id: &'a str,
}

impl TraceParent<'_> {
    /// One header, as the standard has it; what is not is treated as if it were not there.
    pub fn of(headers: &HeaderMap) -> Option<TraceParent<'_>> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (first, second) = (all.next()?, all.next());
        match second {
            Some(_) => None,
            None => parse(first.to_str().ok()?),
        }
    }
}

fn parse(text: &str) -> Option<TraceParent<'_>> {
    let (version, rest) = field(text, VERSION)?;
    let (trace_id, rest) = field(rest.strip_prefix('-')?, TRACE_ID)?;
    let (parent_id, rest) = field(rest.strip_prefix('-')?, PARENT_ID)?;
    let (_, rest) = field(rest.strip_prefix('-')?, FLAGS)?;
    // A later version may have more fields.
    let has_right_end = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    let is_nothing = |id: &str| id.bytes().all(|digit| digit == b'0');
    let is_valid =
        has_right_end && version != "ff" && !is_nothing(trace_id) && !is_nothing(parent_id);
    is_valid.then_some(TraceParent { trace_id, parent_id })
}

/// So many hexadecimal digits, in lower case, and what follows them.
fn field(text: &str, digits: usize) -> Option<(&str, &str)> {
    let (field, rest) = text.split_at_checked(digits)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    field.bytes().all(is_digit).then_some((field, rest))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn only_what_the_standard_allows_is_a_trace() {
        let right = Some(TraceParent { trace_id: TRACE, parent_id: PARENT });
        for (text, expected) in [
            (format!("00-{TRACE}-{PARENT}-01"), right),
            (format!("00-{TRACE}-{PARENT}-00"), right),
            (format!("cc-{TRACE}-{PARENT}-01"), right),
            (format!("cc-{TRACE}-{PARENT}-01-what-may-come"), right),
            (format!("00-{TRACE}-{PARENT}-01-what-may-come"), None),
            (format!("cc-{TRACE}-{PARENT}-01.what-may-come"), None),
            (format!("ff-{TRACE}-{PARENT}-01"), None),
            (format!("00-{}-{PARENT}-01", TRACE.to_uppercase()), None),
            (format!("00-{}-{PARENT}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{TRACE}-{PARENT}-0"), None),
            (format!("00-{TRACE}-{PARENT}"), None),
            (format!("00-{TRACE}é{PARENT}-01"), None),
            (format!("0-{TRACE}-{PARENT}-01"), None),
            (format!("00_{TRACE}_{PARENT}_01"), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&text), expected, "{text}");
        }
    }

    #[test]
    fn two_traces_are_none() {
        let value = |flags| HeaderValue::try_from(format!("00-{TRACE}-{PARENT}-{flags}")).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.append(TRACEPARENT, value("01"));
        assert_eq!(TraceParent::of(&headers).map(|it| it.trace_id), Some(TRACE));
        headers.append(TRACEPARENT, value("00"));
        assert_eq!(TraceParent::of(&headers), None);
    }
}
