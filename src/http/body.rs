//! Reads a request's body: JSON, within its size and its time, into a type.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::error::Error;
use super::fields::{FIELD_BYTES_MAX, unknown};
use super::guard::Caller;
use super::workers::Line;
use super::{App, Bounds};

/// For the rest of a body that nobody wants: it keeps a connection's place.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Of why a body cannot be read. The longest of serde's that repeats nothing lists the fields of a
/// type.
const REASON_BYTES_MAX: usize = 600;

/// A body that is parsed by the async thread itself: about half a millisecond's work.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// The body as `T`. An error names the field that is wrong.
pub async fn read<T: DeserializeOwned + Send + 'static>(
    request: Request,
    app: &App,
) -> Result<T, Error> {
    let bounds = &app.bounds;
    if let Err(refusal) = check_headers(request.headers(), bounds) {
        discard(request, bounds);
        return Err(refusal);
    }
    let caller: &Caller = request.extensions().get().expect("the guard has let somebody in");
    let line = app.workers.line(&caller.namespace);
    let bytes = collect(request.into_body(), bounds, &line).await?;
    line.work(bytes.len(), INLINE_BYTES_MAX, move || parse(&bytes)).await?
}

/// The same of a body that may be left out: then every field has its default.
pub async fn read_if_any<T: DeserializeOwned + Default + Send + 'static>(
    request: Request,
    app: &App,
) -> Result<T, Error> {
    match request.body().is_end_stream() {
        true => Ok(T::default()),
        false => read(request, app).await,
    }
}

/// Takes what is still to come and forgets it, for as long as a body may take. A client that is
/// still sending when its answer comes and the connection closes would not get to see the answer.
pub fn discard(request: Request, bounds: &Bounds) {
    // Who asks before it sends need not send at all.
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return;
    }
    discard_rest(Limited::new(request.into_body(), bounds.body_bytes), bounds);
}

fn discard_rest(mut body: Limited<Body>, bounds: &Bounds) {
    let timeout = bounds.body_timeout.min(DISCARD_TIMEOUT);
    tokio::spawn(async move {
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        // Slow or long: then the connection closes.
        let _ = tokio::time::timeout(timeout, all).await;
    });
}

fn check_headers(headers: &HeaderMap, bounds: &Bounds) -> Result<(), Error> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let media_type = text(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
    // A page may send plain text or a form to any site unasked, JSON only if the site agrees.
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err(Error::NotJson);
    }
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|name| *name != "identity") {
        return Err(Error::Encoded(encoding.to_owned()));
    }
    // hyper has checked that it is a number.
    let length: Option<u64> = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    match length {
        Some(length) if length > bounds.body_bytes as u64 => {
            Err(Error::BodyTooLarge { bytes_max: bounds.body_bytes })
        }
        _ => Ok(()),
    }
}

/// What is there of all bodies of a namespace has a limit, too.
async fn collect(body: Body, bounds: &Bounds, line: &Line) -> Result<Vec<u8>, Error> {
    let bytes_max = bounds.body_bytes;
    let mut body = Limited::new(body, bytes_max);
    let (mut bytes, mut held) = (Vec::new(), line.hold(0)?);
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Error::BodyTooLarge { bytes_max },
                false => Error::BodyCut,
            })?;
            if let Ok(data) = frame.into_data() {
                held.and(line.hold(data.len())?);
                bytes.extend_from_slice(&data);
            }
        }
        Ok(())
    };
    let collected = tokio::time::timeout(bounds.body_timeout, all).await;
    match collected.unwrap_or(Err(Error::BodyTooSlow(bounds.body_timeout))) {
        Ok(()) => Ok(bytes),
        Err(refusal) => {
            if let Error::Engine(_) = refusal {
                discard_rest(body, bounds);
            }
            Err(refusal)
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // serde would take a list of the fields' values, too.
    if bytes.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        return Err(invalid("the body is not a JSON object".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        blame(known(&path), error.inner())
    })?;
    json.end().map_err(|error| blame(".", &error))?;
    Ok(value)
}

/// A path as far as it is known: where the JSON itself breaks off, the last part may be a question
/// mark.
fn known(path: &str) -> &str {
    match path.strip_suffix('?') {
        Some("") => ".",
        Some(parent) => parent.trim_end_matches('.'),
        None => path,
    }
}

/// The refusal of a body with this error at this path; the path of the whole body is a point.
fn blame(path: &str, error: &serde_json::Error) -> Error {
    let whole = error.to_string();
    if let Some(field) = quoted(&whole, "unknown field `") {
        return unknown(&inside(path, field));
    }
    if let Some(field) = quoted(&whole, "missing field `") {
        let field = inside(path, field);
        return Error::field(field.as_str(), format!("{field} is missing"));
    }
    let path = &beginning(path.to_owned(), FIELD_BYTES_MAX)[..];
    let reason = plain(beginning(whole, REASON_BYTES_MAX));
    match error.classify() {
        Category::Data | Category::Syntax if path != "." => {
            Error::field(path, format!("{path}: {reason}"))
        }
        Category::Data => invalid(format!("the body is not valid: {reason}")),
        Category::Syntax | Category::Eof | Category::Io => {
            invalid(format!("the body is not valid JSON: {reason}"))
        }
    }
}

fn invalid(message: String) -> Error {
    Error::Invalid { message, param: None }
}

/// A reason repeats the value that it is about, which may be all of the body, and a path is as long as
/// the body is deep.
fn beginning(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

/// serde's words for types, in words that are not Rust's.
fn plain(reason: String) -> String {
    let words = [
        ("expected u64", "expected a whole number from 0"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("type: map", "type: object"),
        ("type: sequence", "type: list"),
    ];
    words.into_iter().fold(reason, |reason, (rust, plain)| reason.replace(rust, plain))
}

/// The name in serde's "unknown field `name`, expected …" and its like.
fn quoted<'a>(reason: &'a str, beginning: &str) -> Option<&'a str> {
    reason.strip_prefix(beginning)?.split('`').next()
}

/// A field's path; that of its error may end before it or with it.
fn inside(path: &str, field: &str) -> String {
    match path {
        "." => field.to_owned(),
        _ if path == field || path.ends_with(&format!(".{field}")) => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire {
        #[serde(rename = "count")]
        _count: u64,
    }

    fn check(body: &str, expected: Expect) {
        let error = parse::<Wire>(body.as_bytes()).expect_err("it is wrong");
        expected.assert_eq(&error.to_string());
    }

    #[test]
    fn a_refusal_does_not_repeat_what_is_long() {
        let long = "é".repeat(100_000);
        check(
            &format!(r#"{{"{long}": 1}}"#),
            expect!["a field with a long name is not known to this server"],
        );
        check(r#"{"cuont": 1}"#, expect!["cuont is not known to this server"]);
        let error = parse::<Wire>(format!(r#"{{"count": "{long}"}}"#).as_bytes());
        let message = error.expect_err("it is wrong").to_string();
        assert!(message.starts_with("count: invalid type: string \"éé"), "{message}");
        assert!(message.len() < 2 * REASON_BYTES_MAX, "{}", message.len());
    }
}
