//! `/`: a page for people. Everything it needs is in the program; it asks `/v1` like any other client.
//!
//! The files of `ui/` are served as they are: one module of the page each, and each may be kept by a browser as long as its
//! tag is the same.
//!
//! Imports allowed: `actix_web`.

use std::hash::{DefaultHasher, Hash, Hasher};

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, EntityTag, Header, IfNoneMatch, REFERRER_POLICY,
};
use actix_web::web::{ServiceConfig, get};
use actix_web::{HttpRequest, HttpResponse};

use super::read_only;

/// Nothing from elsewhere, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// One file of the page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($kind:literal: $($path:literal = $name:literal),*;)*) => {
        [$($(File { path: $path, kind: $kind, text: include_str!(concat!("ui/", $name)) },)*)*]
    };
}

const FILES: [File; 21] = files! {
    "text/html; charset=utf-8": "/" = "page.html";
    "image/svg+xml": "/ui/icon.svg" = "icon.svg";
    "text/css; charset=utf-8": "/ui/page.css" = "page.css", "/ui/map.css" = "map.css";
    "text/javascript; charset=utf-8":
        "/ui/main.js" = "main.js", "/ui/dom.js" = "dom.js", "/ui/api.js" = "api.js", "/ui/history.js" = "history.js",
        "/ui/overview.js" = "overview.js", "/ui/accounts.js" = "accounts.js", "/ui/contexts.js" = "contexts.js",
        "/ui/spaces.js" = "spaces.js", "/ui/scale.js" = "scale.js", "/ui/map.js" = "map.js", "/ui/paint.js" = "paint.js",
        "/ui/walk.js" = "walk.js", "/ui/faults.js" = "faults.js", "/ui/explain.js" = "explain.js", "/ui/host.js" = "host.js", "/ui/events.js" = "events.js",
        "/ui/operations.js" = "operations.js";
};

pub(super) fn routes(config: &mut ServiceConfig) {
    for file in FILES {
        config.service(read_only(file.path, get().to(move |request| async move { file.answer(&request) })));
    }
}

impl File {
    /// The same text has the same tag.
    fn tag(self) -> EntityTag {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        EntityTag::new_strong(format!("{:016x}", hasher.finish()))
    }

    /// Whether the browser has it already.
    fn is_known(self, request: &HttpRequest) -> bool {
        let known = IfNoneMatch::parse(request);
        matches!(known, Ok(IfNoneMatch::Items(tags)) if tags.iter().any(|tag| tag.weak_eq(&self.tag())))
    }

    fn answer(self, request: &HttpRequest) -> HttpResponse {
        let known = self.is_known(request);
        let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response
            .insert_header((CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((REFERRER_POLICY, "no-referrer"));
        response.insert_header((CACHE_CONTROL, "no-cache")).insert_header((ETAG, self.tag().to_string()));
        if known { response.finish() } else { response.content_type(self.kind).body(self.text) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_module_that_is_imported_is_served_and_every_file_is_used() {
        let all: String = FILES.iter().map(|file| file.text).collect();
        let imported: BTreeSet<&str> =
            all.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for file in FILES.iter().filter(|file| file.path != "/") {
            let name = file.path.trim_start_matches("/ui/");
            assert!(
                imported.contains(name) || all.contains(&format!("\"{}\"", file.path)),
                "{name} is not used"
            );
        }
        for name in imported {
            assert!(FILES.iter().any(|file| file.path == format!("/ui/{name}")), "{name} is not served");
        }
    }

    #[test]
    fn nothing_in_the_page_comes_from_elsewhere_or_could_become_markup() {
        for File { path, text, .. } in FILES {
            let elsewhere = text.replace("http://www.w3.org/", "").contains("://");
            assert!(!elsewhere, "{path} names another host");
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(way), "{path} uses {way}");
            }
        }
    }
}
