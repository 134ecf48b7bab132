//! The hub's three routes: what a repository holds, what a file is, and the file's bytes.
//!
//! Requests are `hf_hub`'s, with its headers and addresses. Its own download is not used: it
//! names a file before anyone could check it, and waits for ever on a silent server.

use super::Error;
use super::name::{HubName, is_safe_path};
use super::settings::HubSettings;
use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::io::Read;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::typestate::WithoutBody;
use ureq::{Body, RequestBuilder};

/// After this many tries the hub has failed. With a second's pause, doubled each time, a hiccup
/// of a quarter of a minute is sat out.
pub(super) const TRIES_MAX: u32 = 5;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of silence: an answer may take as long as it likes while bytes come.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// A hub that asks for more patience than this is told to the user instead.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: u32 = 10;

pub(super) struct Client<'a> {
    repo: ApiRepo,
    name: String,
    settings: &'a HubSettings,
}

/// What the hub says about one file at one commit.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    pub(super) file: String,
    /// The SHA-256 of a large file; git's digest of a small one. Also the blob's name.
    pub(super) etag: String,
    pub(super) size_bytes: u64,
}

impl RemoteFile {
    /// The hub keeps large files, weights always, under their SHA-256.
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_sha256 = self.etag.len() == 64 && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        is_sha256.then_some(self.etag.as_str())
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(
        name: &HubName,
        revision: &str,
        settings: &'a HubSettings,
    ) -> Result<Client<'a>, Error> {
        let token = settings.token.as_ref().map(|token| token.reveal().to_string());
        let api = ApiBuilder::from_cache(Cache::new(settings.cache_dir.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(token)
            .with_progress(false)
            .with_user_agent("semantic", env!("CARGO_PKG_VERSION"))
            .build();
        let api = api.map_err(|error| Error::HubAnswer {
            name: name.to_string(),
            url: settings.endpoint.clone(),
            reason: error.to_string(),
        })?;
        let repo = Repo::with_revision(name.repo(), RepoType::Model, revision.to_string());
        Ok(Client { repo: api.repo(repo), name: name.to_string(), settings })
    }

    /// The files of the repository, and the commit that the revision stands for.
    pub(super) fn info(&self) -> Result<RepoInfo, Error> {
        let request = self.repo.info_request();
        let url = request.uri_ref().map(|uri| uri.to_string()).unwrap_or_default();
        let mut answer = self.call(&url, |request| request)?;
        let info: Result<RepoInfo, _> = answer.body_mut().read_json();
        let mut info = info.map_err(|error| self.bad_answer(&url, error.to_string()))?;
        // Both become file names here.
        info.siblings.retain(|sibling| is_safe_path(&sibling.rfilename));
        if !is_digest(&info.sha) {
            return Err(self.bad_answer(&url, format!("{:?} is no commit", info.sha)));
        }
        Ok(info)
    }

    /// Size and digest of a file, from the headers of its address. The redirect to the store of
    /// large files carries them, so it is not followed.
    pub(super) fn metadata(&self, file: &str) -> Result<RemoteFile, Error> {
        let mut url = self.repo.url(file);
        for _ in 0..REDIRECTS_MAX {
            let answer = self.call(&url, |request| {
                request.header("Range", "bytes=0-0").config().max_redirects(0).build()
            })?;
            let headers = answer.headers();
            // A repository that was renamed: the hub points to its new address first.
            if answer.status().is_redirection() && text(headers, "x-linked-etag").is_none() {
                url = self.moved(&url, text(headers, "location"))?;
                continue;
            }
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            let (Some(etag), Some(size_bytes)) = (etag, size(headers)) else {
                return Err(self.bad_answer(&url, "no ETag or no size".into()));
            };
            if !is_digest(etag) {
                return Err(self.bad_answer(&url, format!("{etag:?} is no digest")));
            }
            return Ok(RemoteFile { file: file.into(), etag: etag.into(), size_bytes });
        }
        Err(self.bad_answer(&url, "too many redirects".into()))
    }

    /// The bytes of a file from an offset on, and the offset at which they really begin: 0 if the
    /// server would not start in the middle.
    pub(super) fn read(&self, file: &str, from: u64) -> Result<(u64, impl Read + use<>), Error> {
        let url = self.repo.url(file);
        let answer = self.call(&url, |request| match from {
            0 => request,
            from => request.header("Range", format!("bytes={from}-")),
        })?;
        let is_range = text(answer.headers(), "content-range")
            .is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
        let offset = match answer.status().as_u16() {
            206 if is_range => from,
            206 => return Err(self.bad_answer(&url, "another range than asked for".into())),
            _ => 0,
        };
        Ok((offset, answer.into_body().into_reader()))
    }

    /// One request, again if the hub is busy. Only success and redirects come back.
    fn call(
        &self,
        url: &str,
        adapt: impl Fn(RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody>,
    ) -> Result<Response<Body>, Error> {
        let mut tried = 0;
        loop {
            let request = self.repo.info_request().uri(url).config();
            let request = request
                .http_status_as_error(false)
                .accept_encoding("identity")
                .timeout_resolve(Some(CONNECT_TIMEOUT))
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(SILENCE_TIMEOUT))
                .timeout_per_read(Some(SILENCE_TIMEOUT))
                .build();
            let answer = adapt(request).call().map_err(|error| self.unreachable(url, error))?;
            let status = answer.status().as_u16();
            tried += 1;
            match status {
                200..=399 => return Ok(answer),
                429 | 500..=599 if tried < TRIES_MAX => {
                    std::thread::sleep(self.pause(tried, text(answer.headers(), "retry-after")));
                }
                _ => return Err(self.refused(url, status)),
            }
        }
    }

    /// How long to wait before the next try, of which `tried` have been.
    pub(super) fn pause(&self, tried: u32, retry_after: Option<&str>) -> Duration {
        match retry_after.and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => Duration::from_secs(seconds).min(RETRY_AFTER_MAX),
            None => self.settings.retry_wait * 2_u32.pow(tried.saturating_sub(1)),
        }
    }

    /// Where a redirect leads, if it stays on the hub: our requests carry the token.
    fn moved(&self, url: &str, location: Option<&str>) -> Result<String, Error> {
        let endpoint = &self.settings.endpoint;
        match location {
            Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                let host = endpoint.match_indices('/').nth(2).map(|(at, _)| at);
                Ok(format!("{}{path}", &endpoint[..host.unwrap_or(endpoint.len())]))
            }
            Some(same) if same.starts_with(&format!("{endpoint}/")) => Ok(same.to_string()),
            other => Err(self.bad_answer(url, format!("a redirect to {other:?} without a digest"))),
        }
    }

    fn refused(&self, url: &str, status: u16) -> Error {
        let (name, url) = (self.name.clone(), url.to_string());
        match status {
            401 | 403 => Error::Denied { name, url, status },
            404 => Error::NotOnHub { name, url },
            _ => Error::HubAnswer { name, url, reason: format!("it answered {status}") },
        }
    }

    fn unreachable(&self, url: &str, error: ureq::Error) -> Error {
        // An endpoint that is no URL makes none.
        let url = if url.is_empty() { &self.settings.endpoint } else { url };
        Error::HubUnreachable {
            name: self.name.clone(),
            url: url.to_string(),
            reason: error.to_string(),
            cache_dir: self.settings.cache_dir.clone(),
        }
    }

    fn bad_answer(&self, url: &str, reason: String) -> Error {
        Error::HubAnswer { name: self.name.clone(), url: url.to_string(), reason }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Commits and digests name files in the cache, so nothing else may pass for one.
fn is_digest(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn size(headers: &HeaderMap) -> Option<u64> {
    let whole = || text(headers, "content-range")?.rsplit('/').next();
    let size = text(headers, "x-linked-size").or_else(whole);
    size.or_else(|| text(headers, "content-length"))?.parse().ok()
}
