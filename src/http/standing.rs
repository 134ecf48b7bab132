//! The headers that tell who asks how much of its limits is left: `RateLimit-Policy` and `RateLimit`, as
//! draft-ietf-httpapi-ratelimit-headers-10 has them. Pure: the time is an argument of who calls.

use std::fmt::Write;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::gcra::{Quota, Standing};

pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The window of every quota here.
const WINDOW_S: u32 = 60;

/// A limit, by its name, and what is left of it.
#[derive(Clone, Copy, Debug)]
pub struct Limited {
    pub name: Name,
    pub quota: Quota,
    pub standing: Standing,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Requests,
    Tokens,
}

/// Writes what is left of these limits; nothing if there are none.
pub fn mark(headers: &mut HeaderMap, limits: &[Limited]) {
    if limits.is_empty() {
        return;
    }
    let value = |text: String| HeaderValue::try_from(text).expect("names and numbers");
    headers.insert(POLICY, value(list(limits, policy)));
    headers.insert(LIMIT, value(list(limits, left)));
}

/// `Retry-After` and `t` have whole seconds: rounded up, so that who waits that long is served.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn list(limits: &[Limited], item: impl Fn(&Limited) -> String) -> String {
    limits.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// The most there is, and in which time.
fn policy(Limited { name, quota, .. }: &Limited) -> String {
    let count = quota.count();
    match name {
        // The unit that there is if none is named.
        Name::Requests => format!("\"requests\";q={count};w={WINDOW_S}"),
        Name::Tokens => format!("\"tokens\";q={count};w={WINDOW_S};qu=\"tokens\""),
    }
}

/// `r` could be had at once; after `t` seconds it is more than that. Without `t` it is all there is.
fn left(Limited { name, standing, .. }: &Limited) -> String {
    let name = match name {
        Name::Requests => "requests",
        Name::Tokens => "tokens",
    };
    let mut text = format!("\"{name}\";r={}", standing.remaining);
    if let Some(wait) = standing.more_after {
        write!(text, ";t={}", whole_seconds(wait)).expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_lists_of_structured_fields() {
        let quota = |count| Quota::per_minute(count).expect("a quota");
        let limit = |name, count, remaining, more_after| Limited {
            name,
            quota: quota(count),
            standing: Standing { remaining, more_after },
        };
        let mut headers = HeaderMap::new();
        mark(&mut headers, &[]);
        assert!(headers.is_empty());
        let some = Some(Duration::from_millis(29_001));
        mark(
            &mut headers,
            &[limit(Name::Requests, 60, 59, some), limit(Name::Tokens, 10_000, 10_000, None)],
        );
        assert_eq!(
            headers["ratelimit-policy"],
            "\"requests\";q=60;w=60, \"tokens\";q=10000;w=60;qu=\"tokens\""
        );
        assert_eq!(headers["ratelimit"], "\"requests\";r=59;t=30, \"tokens\";r=10000");
    }
}
