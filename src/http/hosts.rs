//! Which host names are this server's, and which web pages may talk to it.
//!
//! A browser sends requests wherever a page tells it to. A page that has its own name resolve to
//! this machine (DNS rebinding) still sends that name as `Host`; a page of another site sends that
//! site as `Origin`.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::error::Error;

/// The names of this server, without ports.
pub struct Hosts(Vec<String>);

impl Hosts {
    pub fn new(names: Vec<String>) -> Hosts {
        let bare = names.iter().map(|name| without_port(name).to_ascii_lowercase());
        // Of the empty name every request without a host would be.
        Hosts(bare.filter(|name| !name.is_empty()).collect())
    }

    /// Refuses what is addressed to another host, or sent by another site's page unless that is of
    /// an allowed origin.
    pub fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        allowed_origin: Option<&HeaderValue>,
    ) -> Result<(), Error> {
        // Where there are two, whoever is before us may have read the other one.
        let [host, origin] = [HOST, ORIGIN].map(|name| Sent::of(headers, name));
        // A request may name a host twice, as `GET http://host/ HTTP/1.1` does; then both count.
        let named = match host {
            Sent::Once(host) => self.allows(host),
            Sent::Never | Sent::Unreadable => false,
        };
        if !named || uri.host().is_some_and(|host| !self.allows(host)) {
            return Err(Error::ForeignHost);
        }
        let is_own = match origin {
            Sent::Never => true,
            Sent::Once(_) if allowed_origin.is_some() => return Ok(()),
            Sent::Once(origin) => origin_host(origin).is_some_and(|host| self.allows(host)),
            Sent::Unreadable => false,
        };
        let is_cross_site =
            headers.get("sec-fetch-site").is_some_and(|value| value == "cross-site");
        match is_own && !is_cross_site {
            true => Ok(()),
            false => Err(Error::ForeignOrigin),
        }
    }

    fn allows(&self, host: &str) -> bool {
        let host = without_port(host);
        self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// A header that says one thing at most.
enum Sent<'a> {
    Never,
    Once(&'a str),
    /// More than once, or as no text.
    Unreadable,
}

impl Sent<'_> {
    fn of(headers: &HeaderMap, name: HeaderName) -> Sent<'_> {
        let mut values = headers.get_all(name).iter();
        match (values.next().map(HeaderValue::to_str), values.next()) {
            (None, _) => Sent::Never,
            (Some(Ok(text)), None) => Sent::Once(text),
            (Some(_), _) => Sent::Unreadable,
        }
    }
}

/// `null` and whatever else is no web page has no host.
fn origin_host(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// `host` of `host:port` and `[::1]` of `[::1]:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // The last group of an address without brackets is no port.
            match name.contains(':') && !name.ends_with(']') {
                true => host,
                false => name,
            }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_port_of_a_name_and_no_other_name() {
        let hosts = Hosts::new(
            ["127.0.0.1", "localhost", "[::1]", "Box.local:80"].map(String::from).to_vec(),
        );
        for host in
            ["127.0.0.1", "127.0.0.1:8000", "LOCALHOST:1", "[::1]:8000", "[::1]", "box.local"]
        {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.com",
            "127.0.0.1.evil.com",
            "localhost.",
            "::1",
            "[::2]:80",
            "127.0.0.1:80:80",
            "user@localhost",
            "localhost:x",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
        assert_eq!(origin_host("null"), None);
        assert_eq!(origin_host("https://a.b:1"), Some("a.b:1"));
    }
}
