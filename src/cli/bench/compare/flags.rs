//! Which servers to compare with, as the user names them: checked before anything runs.

use std::collections::BTreeMap;

use super::endpoint::Endpoint;
use crate::cli::output::{Failure, printable};

/// What ours is called in the tables.
pub const OURS: &str = "semantic";
/// More columns than anyone reads.
const SERVERS_MAX: usize = 8;
const NAME_CHARS_MAX: usize = 32;

#[derive(Debug, clap::Args)]
pub struct UrlFlags {
    /// Compare with this OpenAI-compatible server only, repeatable
    #[arg(long, value_name = "NAME=URL")]
    url: Vec<String>,
    /// The variable of the environment that has this server's API key
    #[arg(long, value_name = "NAME=VARIABLE", requires = "url")]
    url_key: Vec<String>,
    /// Which of this server's models to ask [default: the first that it lists]
    #[arg(long, value_name = "NAME=MODEL", requires = "url")]
    url_model: Vec<String>,
}

/// A server as it was named.
#[derive(Debug, PartialEq)]
pub struct Named {
    pub name: String,
    /// Without a slash at the end, and without `/v1`.
    pub base: String,
    pub key: Option<String>,
    pub model: Option<String>,
}

impl UrlFlags {
    /// The servers, each of which answers. `suites` are those that the user asked for.
    pub fn endpoints(&self, suites: &[String]) -> Result<Vec<Endpoint>, Failure> {
        let is_asked = suites.iter().any(|suite| suite == super::NAME);
        match (self.url.is_empty(), suites.is_empty(), is_asked) {
            (true, _, true) => {
                let message = "--suite compare needs a server: --url NAME=URL";
                return Err(Failure::Usage(message.to_owned()));
            }
            (false, false, false) => {
                let message = "--url is for the suite `compare`, which --suite leaves out";
                return Err(Failure::Usage(message.to_owned()));
            }
            _ => (),
        }
        let named = self.named(|variable| std::env::var(variable).ok())?;
        named.into_iter().map(Endpoint::reach).collect()
    }

    pub fn is_given(&self) -> bool {
        !self.url.is_empty()
    }

    fn named(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Named>, Failure> {
        let urls = pairs("--url", "URL", &self.url)?;
        let mut keys = pairs("--url-key", "VARIABLE", &self.url_key)?;
        let mut models = pairs("--url-model", "MODEL", &self.url_model)?;
        if urls.len() > SERVERS_MAX {
            return Err(Failure::Usage(format!(
                "--url is given {} times; at most {SERVERS_MAX} servers are compared",
                urls.len()
            )));
        }
        let mut all = Vec::new();
        for (name, url) in urls {
            let key = keys.remove(&name).map(|it| key(&name, &it, &variable)).transpose()?;
            let base = base(&name, &url)?;
            all.push(Named { key, base, model: models.remove(&name), name });
        }
        for (flag, rest) in [("--url-key", keys), ("--url-model", models)] {
            if let Some((name, _)) = rest.first_key_value() {
                return Err(Failure::Usage(format!("{flag} names {name:?}, which no --url names")));
            }
        }
        Ok(all)
    }
}

/// The values of a flag that is given as NAME=VALUE, by name.
fn pairs(flag: &str, what: &str, values: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for value in values {
        let shown = printable(value);
        let Some((name, value)) = value.split_once('=').filter(|(_, value)| !value.is_empty())
        else {
            return Err(Failure::Usage(format!("{flag} is {shown:?}; it is like NAME={what}")));
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_name) {
            return Err(Failure::Usage(format!(
                "{flag} is {shown:?}; a name has 1 to {NAME_CHARS_MAX} letters, digits, dots, \
                 dashes and underscores"
            )));
        }
        if name == OURS {
            return Err(Failure::Usage(format!(
                "{flag} is {shown:?}; {OURS} is the server that is started here"
            )));
        }
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::Usage(format!("{flag} names {name:?} twice")));
        }
    }
    Ok(pairs)
}

/// What the variable has. Its value is in no message.
fn key(
    name: &str,
    variable: &str,
    value: &impl Fn(&str) -> Option<String>,
) -> Result<String, Failure> {
    let is_token = |key: &String| !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic());
    value(variable).filter(is_token).ok_or_else(|| {
        Failure::Usage(format!(
            "--url-key {name}={}: the environment has no key in that variable",
            printable(variable)
        ))
    })
}

/// Where its paths begin: with or without `/v1` at the end, as documentations differ.
fn base(name: &str, url: &str) -> Result<String, Failure> {
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base).trim_end_matches('/');
    let parsed: Result<ureq::http::Uri, _> = base.parse();
    let is_web = |uri: &ureq::http::Uri| {
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        is_known && uri.query().is_none() && !has_user
    };
    match parsed.is_ok_and(|uri| is_web(&uri)) {
        true => Ok(base.to_owned()),
        false => Err(Failure::Usage(format!(
            "--url {name}={}: it is like {name}=http://localhost:8080, without user and query",
            printable(url)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(url: &[&str], url_key: &[&str], url_model: &[&str]) -> Result<Vec<Named>, String> {
        let [url, url_key, url_model] =
            [url, url_key, url_model].map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        let variable = |name: &str| match name {
            "KEY" => Some("secret".to_owned()),
            "BAD" => Some("se\ncret".to_owned()),
            _ => None,
        };
        UrlFlags { url, url_key, url_model }.named(variable).map_err(|failure| match failure {
            Failure::Usage(message) => message,
            _ => panic!("it is not wrong usage"),
        })
    }

    #[test]
    fn a_server_is_a_name_and_where_it_is() {
        for url in ["http://host:80", "http://host:80/", "http://host:80/v1", "http://host:80/v1/"]
        {
            let all = named(&[&format!("a={url}")], &["a=KEY"], &["a=org/m=1"]).expect("a server");
            let expected = Named {
                name: "a".to_owned(),
                base: "http://host:80".to_owned(),
                key: Some("secret".to_owned()),
                model: Some("org/m=1".to_owned()),
            };
            assert_eq!(all, [expected]);
        }
        let all = named(&["b=https://host/api/v1", "a=http://[::1]:8080"], &[], &[]);
        let bases: Vec<String> = all.expect("two").into_iter().map(|it| it.base).collect();
        assert_eq!(bases, ["http://[::1]:8080", "https://host/api"]);
    }

    #[test]
    fn whatever_is_not_a_server_is_refused_by_name() {
        let refused = |url: &[&str], key: &[&str], model: &[&str], message: &str| {
            assert_eq!(named(url, key, model), Err(message.to_owned()));
        };
        let like = |shown: &str| format!("--url is {shown:?}; it is like NAME=URL");
        refused(&["http://host"], &[], &[], &like("http://host"));
        refused(&["a="], &[], &[], &like("a="));
        let name = "a name has 1 to 32 letters, digits, dots, dashes and underscores";
        refused(&["a b=http://host"], &[], &[], &format!("--url is \"a b=http://host\"; {name}"));
        refused(&["=http://host"], &[], &[], &format!("--url is \"=http://host\"; {name}"));
        let ours = "--url is \"semantic=http://host\"; semantic is the server that is started here";
        refused(&["semantic=http://host"], &[], &[], ours);
        refused(&["a=http://x", "a=http://y"], &[], &[], "--url names \"a\" twice");
        for url in ["ftp://host", "host:80", "http://me:secret@host", "http://host?x=1", "http://"]
        {
            let message = format!(
                "--url a={url}: it is like a=http://localhost:8080, without user and query"
            );
            refused(&[&format!("a={url}")], &[], &[], &message);
        }
        let key = "--url-key a=NONE: the environment has no key in that variable";
        refused(&["a=http://x"], &["a=NONE"], &[], key);
        let key = "--url-key a=BAD: the environment has no key in that variable";
        refused(&["a=http://x"], &["a=BAD"], &[], key);
        let unknown = "--url-key names \"b\", which no --url names";
        refused(&["a=http://x"], &["b=KEY"], &[], unknown);
        let unknown = "--url-model names \"b\", which no --url names";
        refused(&["a=http://x"], &[], &["b=m"], unknown);
        let many: Vec<String> = (0..9).map(|number| format!("a{number}=http://x")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        refused(&many, &[], &[], "--url is given 9 times; at most 8 servers are compared");
    }
}
