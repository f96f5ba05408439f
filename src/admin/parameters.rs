//! What a request asks for: ids in the path, parameters in the query, and the part of a list it wants.
//!
//! A parameter that is wrong, given twice or not known is a problem that names it.
//!
//! Imports allowed: `actix_web`, problem, json, the actors' registry and figures.

use std::fmt::Display;
use std::str::FromStr;

use actix_web::{HttpRequest, web};

use super::json::{Hex, Listed};
use super::problem::{Kind, Problem};
use crate::actors::figures::IoasStats;
use crate::actors::number::Number;
use crate::actors::registry::{Entry, Registry};

/// Rows in an answer when nobody says.
pub(super) const LIMIT: usize = 100;

/// Rows in an answer at most.
pub(crate) const LIMIT_MAX: usize = 1000;

/// The parameters of a request that nobody has taken yet.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of `request`.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let pairs = pairs.map_err(|error| {
            Problem::new(Kind::ParameterInvalid, format!("the query cannot be read: {error}"))
        })?;
        Ok(Self(pairs.into_inner()))
    }

    /// Takes parameter `name`.
    pub(super) fn take<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Problem> {
        let mut given = self.0.extract_if(.., |(key, _)| key == name).map(|(_, value)| value);
        let (first, second) = (given.next(), given.next());
        drop(given);
        if second.is_some() {
            return Err(Problem::parameter(name, "it is given more than once"));
        }
        first.map(|text| text.parse().map_err(|error| Problem::parameter(name, error))).transpose()
    }

    /// Takes parameter `name`, which must be there.
    pub(super) fn need<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        example: &str,
    ) -> Result<T, Problem> {
        let missing = || Problem::parameter(name, format_args!("it is missing, add ?{name}={example}"));
        self.take(name)?.ok_or_else(missing)
    }

    /// Fails if a parameter is left.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let detail = format!("{name:?} is no parameter of this path");
        Err(Problem::new(Kind::ParameterUnknown, detail))
    }
}

/// Digits of the longest number: so that it surely fits into 64 bits.
pub(super) const DIGITS_MAX: usize = 19;

/// A whole number as it is written in paths and cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub(super) u64);

impl FromStr for Whole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = plain.then(|| text.parse().ok()).flatten();
        number.map(Self).ok_or_else(|| format!("{text:?} is not a number of {DIGITS_MAX} digits at most"))
    }
}

/// The `{id}` in the path of `request`.
pub(super) fn id(request: &HttpRequest) -> Result<u64, Problem> {
    let text = request.match_info().get("id").unwrap_or_default();
    text.parse::<Whole>().map(|id| id.0).map_err(|error| Problem::parameter("id", error))
}

/// Fails if `request` has a parameter.
pub(super) fn none(request: &HttpRequest) -> Result<(), Problem> {
    Parameters::of(request)?.finish()
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<C> {
    /// The last row known already.
    pub(super) after: Option<C>,
    /// Rows wanted at most.
    pub(super) limit: usize,
}

impl<C: FromStr<Err: Display>> Part<C> {
    /// What `request` wants, if it wants nothing else.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let mut parameters = Parameters::of(request)?;
        let part = Self::take(&mut parameters)?;
        parameters.finish()?;
        Ok(part)
    }

    /// Takes `after` and `limit`.
    pub(super) fn take(parameters: &mut Parameters) -> Result<Self, Problem> {
        Ok(Self { after: parameters.take("after")?, limit: limit(parameters)? })
    }
}

/// Takes `limit`: rows wanted at most.
pub(super) fn limit(parameters: &mut Parameters) -> Result<usize, Problem> {
    match parameters.take::<Whole>("limit")?.map(|limit| usize::try_from(limit.0)) {
        None => Ok(LIMIT),
        Some(Ok(limit @ 1..=LIMIT_MAX)) => Ok(limit),
        Some(_) => {
            let detail = format_args!("a part of a list has 1 to {LIMIT_MAX} rows");
            Err(Problem::parameter("limit", detail))
        }
    }
}

/// Which objects of a list are wanted, by a number they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter(Option<Whole>);

impl Filter {
    /// Takes the filter `name`; without it everything is wanted.
    pub(super) fn take(parameters: &mut Parameters, name: &'static str) -> Result<Self, Problem> {
        parameters.take(name).map(Self)
    }

    /// Whether an object with this number is wanted.
    pub(super) fn passes(self, number: impl Into<Option<u64>>) -> bool {
        self.0.is_none_or(|wanted| number.into() == Some(wanted.0))
    }
}

/// A part of a list of areas.
pub(super) type AddressPart = Part<Hex>;

/// A part of a list of numbered objects.
pub(super) type NumberPart = Part<Whole>;

impl NumberPart {
    /// This part of `entries`, which are in the order of their numbers.
    pub(super) fn list<S, T>(self, entries: &[Entry<S>], row: impl Fn(&Entry<S>) -> T) -> Listed<T> {
        let known =
            self.after.map_or(0, |after| entries.partition_point(|entry| entry.number.get() <= after.0));
        let rest = entries.get(known..).unwrap_or_default();
        let items = rest.iter().take(self.limit).map(row).collect();
        let next = rest.get(self.limit.saturating_sub(1)).filter(|_| rest.len() > self.limit);
        Listed { items, next: next.map(|last| last.number.get().to_string()) }
    }
}

/// The context and the address space that an object belongs to, by their numbers.
pub(super) type Belongs = (Option<u64>, Option<u64>);

/// What uses address space `ioas` belongs to it and to its context.
pub(super) fn belongs(registry: &Registry, ioas: Number<IoasStats>) -> Belongs {
    (registry.context_of(ioas.get()), Some(ioas.get()))
}

/// A part of a list of what uses address spaces, filtered by those and by contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserPart {
    part: NumberPart,
    context: Filter,
    ioas: Filter,
}

impl UserPart {
    /// What `request` wants, if it wants nothing else.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let mut parameters = Parameters::of(request)?;
        let part = NumberPart::take(&mut parameters)?;
        let context = Filter::take(&mut parameters, "context")?;
        let ioas = Filter::take(&mut parameters, "ioas")?;
        parameters.finish()?;
        Ok(Self { part, context, ioas })
    }

    /// This part of those of `entries` that are wanted.
    pub(super) fn list<S, T>(
        self,
        mut entries: Vec<Entry<S>>,
        belongs: impl Fn(&S) -> Belongs,
        row: impl Fn(&Entry<S>) -> T,
    ) -> Listed<T> {
        entries.retain(|entry| {
            let (context, ioas) = belongs(&entry.stats);
            self.context.passes(context) && self.ioas.passes(ioas)
        });
        self.part.list(&entries, row)
    }
}
