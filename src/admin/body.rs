//! The body of a change: JSON of one type, of which every field is known.
//!
//! Imports allowed: `actix_web`, problem.

use actix_web::dev::Payload;
use actix_web::web::{Bytes, PayloadConfig};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};

/// Bytes of the longest body.
pub(super) const BODY_MAX: usize = 64 << 10;

/// A body that was understood.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            let invalid =
                |why: String| Problem::new(Kind::BodyInvalid, format!("the body cannot be used: {why}"));
            let bytes = bytes.await.map_err(|error| invalid(error.to_string()))?;
            serde_json::from_slice(&bytes).map(Self).map_err(|error| invalid(error.to_string()))
        })
    }
}

/// How bodies are taken.
pub(super) fn limits() -> PayloadConfig {
    PayloadConfig::new(BODY_MAX)
}
