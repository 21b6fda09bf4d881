//! The page of the admin port: the figures of this replica for eyes, in one answer that
//! asks nobody else for anything. It does not know what the figures are: the page asks
//! for them as anyone would.

use std::sync::LazyLock;

use data_encoding::BASE64;
use http::{
    HeaderValue, Response,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use http_body_util::Full;
use hyper::body::Bytes;
use sha2::{Digest, Sha256};

const MARKUP: &str = include_str!("console/page.html");
const STYLE: &str = include_str!("console/page.css");
const SCRIPT: &str = include_str!("console/page.js");

/// Where the style and the script are put into the markup.
const STYLE_PLACE: &str = "/* page.css */";
const SCRIPT_PLACE: &str = "/* page.js */";

/// The page, and what a browser lets it do.
struct Page {
    html: Bytes,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    html: MARKUP
        .replacen(STYLE_PLACE, STYLE, 1)
        .replacen(SCRIPT_PLACE, SCRIPT, 1)
        .into(),
    // Should a hash ever be unfit for a header, nothing at all is allowed.
    policy: HeaderValue::try_from(policy())
        .unwrap_or(HeaderValue::from_static("default-src 'none'")),
});

/// Its own style and script run and nothing else does, figures are asked for here alone,
/// no text becomes markup, and nobody puts it into a frame.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

/// A text as a policy names it.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(&Sha256::digest(text)))
}

/// The answer to whoever may see the page.
pub(super) fn page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(PAGE.html.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody() {
        let html = std::str::from_utf8(&PAGE.html).unwrap();
        assert!(html.contains(STYLE) && html.contains(SCRIPT));
        for place in [STYLE_PLACE, SCRIPT_PLACE] {
            assert_eq!(MARKUP.matches(place).count(), 1, "{place}");
            assert!(!html.contains(place));
        }
        // What would end the element that they stand in.
        assert!(!STYLE.contains("</style") && !SCRIPT.contains("</script"));
        for foreign in ["http://", "https://", "//cdn", "@import", "url("] {
            let own = "http://www.w3.org/2000/svg";
            assert!(!html.replace(own, "").contains(foreign), "{foreign}");
        }
        // What the policy would not let happen, or what would make text into markup.
        for unfit in [
            "style=",
            "onclick",
            "onload",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!html.contains(unfit), "{unfit}");
        }
    }

    #[test]
    fn the_policy_names_what_is_in_the_page() {
        let response = page();
        let policy = response.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        for text in [SCRIPT, STYLE] {
            assert!(policy.contains(&hash(text)), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        // The hash of nothing, as everybody knows it.
        assert_eq!(
            hash(""),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }
}
