//! Who may see the page: whoever knows its address, from a browser that was told that address and no other.
//!
//! Source: docs/design/map.md, "The live page". Other users of this machine can reach the port, and so can any web page in a browser:
//! directly, and by a name that leads to 127.0.0.1 (DNS rebinding), which the `Host` header gives away.

use std::net::SocketAddr;

use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Uri};
use subtle::ConstantTimeEq;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The page.
    Page,
    /// Its style.
    Style,
    /// Its program.
    Script,
    /// What it shows, again and again.
    Events,
    /// The page, without the stroke at the end.
    Unfinished,
    /// Nothing that there is.
    Nothing,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was asked of another host's name.
    Host,
    /// Without the token, or with a wrong one.
    Token,
    /// It is not to be read but written.
    Method,
}

/// The token and the address.
#[derive(Debug)]
pub(super) struct Gate {
    token: String,
    address: SocketAddr,
    /// What `Host` may say.
    hosts: Vec<String>,
}

impl Gate {
    pub(super) fn new(token: &str, address: SocketAddr) -> Self {
        let mut hosts = vec![address.to_string(), format!("localhost:{}", address.port())];
        if address.port() == 80 {
            let plain = hosts.iter().filter_map(|host| host.strip_suffix(":80").map(str::to_owned));
            let plain: Vec<String> = plain.collect();
            hosts.extend(plain);
        }
        Self { token: token.to_owned(), address, hosts }
    }

    /// Where the page is.
    pub(super) fn url(&self) -> String {
        format!("http://{}/{}/", self.address, self.token)
    }

    /// Whether it may be had, and what it is.
    pub(super) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Asked, Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Host) };
        let known = |host: &str| self.hosts.iter().any(|one| one.eq_ignore_ascii_case(host));
        if !host.to_str().is_ok_and(known) || uri.authority().is_some_and(|a| !known(a.as_str())) {
            return Err(Refusal::Host);
        }
        let path = uri.path().strip_prefix('/').unwrap_or_default();
        let (word, rest) = path.split_once('/').unwrap_or((path, "/"));
        if !self.is_token(word) {
            return Err(Refusal::Token);
        }
        if method != Method::GET && method != Method::HEAD {
            return Err(Refusal::Method);
        }
        Ok(match rest {
            "" => Asked::Page,
            "/" => Asked::Unfinished,
            "page.css" => Asked::Style,
            "page.js" => Asked::Script,
            "events" => Asked::Events,
            _ => Asked::Nothing,
        })
    }

    /// In a time that does not depend on how much of it is right.
    fn is_token(&self, word: &str) -> bool {
        word.len() == self.token.len() && bool::from(word.as_bytes().ct_eq(self.token.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn asked(host: Option<&str>, uri: &str) -> Result<Asked, Refusal> {
        let gate = Gate::new("0123456789abcdef", "127.0.0.1:8011".parse().expect("an address"));
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, HeaderValue::from_str(host).expect("a header"));
        }
        gate.check(&Method::GET, &uri.parse().expect("a URI"), &headers)
    }

    #[test]
    fn only_with_the_token_and_by_its_own_name() {
        let here = Some("127.0.0.1:8011");
        for (host, uri, expected) in [
            (here, "/0123456789abcdef/", Ok(Asked::Page)),
            (here, "/0123456789abcdef/?a=b", Ok(Asked::Page)),
            (here, "/0123456789abcdef", Ok(Asked::Unfinished)),
            (here, "/0123456789abcdef/events", Ok(Asked::Events)),
            (here, "/0123456789abcdef/page.js", Ok(Asked::Script)),
            (here, "/0123456789abcdef/page.css", Ok(Asked::Style)),
            (here, "/0123456789abcdef/../page.css", Ok(Asked::Nothing)),
            (Some("LocalHost:8011"), "/0123456789abcdef/", Ok(Asked::Page)),
            (here, "http://127.0.0.1:8011/0123456789abcdef/", Ok(Asked::Page)),
            (here, "http://evil.example/0123456789abcdef/", Err(Refusal::Host)),
            (here, "/", Err(Refusal::Token)),
            (here, "", Err(Refusal::Token)),
            (here, "/events", Err(Refusal::Token)),
            (here, "/favicon.ico", Err(Refusal::Token)),
            (here, "/0123456789abcdee/", Err(Refusal::Token)),
            (here, "/0123456789abcde/", Err(Refusal::Token)),
            (here, "/0123456789abcdef0/", Err(Refusal::Token)),
            (here, "//0123456789abcdef/", Err(Refusal::Token)),
            (None, "/0123456789abcdef/", Err(Refusal::Host)),
            (Some("evil.example:8011"), "/0123456789abcdef/", Err(Refusal::Host)),
            (Some("127.0.0.1"), "/0123456789abcdef/", Err(Refusal::Host)),
            (Some("127.0.0.1:80"), "/0123456789abcdef/", Err(Refusal::Host)),
        ] {
            let uri = if uri.is_empty() { "/" } else { uri };
            assert_eq!(asked(host, uri), expected, "{host:?} {uri}");
        }
    }

    #[test]
    fn nothing_is_written() {
        let gate = Gate::new("0123456789abcdef", "[::1]:80".parse().expect("an address"));
        assert_eq!(gate.url(), "http://[::1]:80/0123456789abcdef/");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("[::1]"));
        let uri: Uri = "/0123456789abcdef/".parse().expect("a URI");
        for method in [Method::POST, Method::PUT, Method::OPTIONS, Method::DELETE] {
            assert_eq!(gate.check(&method, &uri, &headers), Err(Refusal::Method));
        }
        assert_eq!(gate.check(&Method::HEAD, &uri, &headers), Ok(Asked::Page));
        headers.append(HOST, HeaderValue::from_static("[::1]"));
        assert_eq!(gate.check(&Method::GET, &uri, &headers), Err(Refusal::Host));
    }
}
