//! `/v1/ioas/{id}/explain`: whether a map would succeed in an address space, for whom and where; if not, why, and all that
//! is in its way.
//!
//! The refusal is that of a real map of now: errno, code and text. Two owners are asked one after the other, that of the
//! address space and that of its context; nothing is changed. What only a real map can tell is left open: whether the file
//! can be held, and how much memory page tables take.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view and questions, storage's ledger.

use std::str::FromStr;

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gaps::{RangeRow, ruled};
use super::json::{Hex, shown};
use super::parameters::Parameters;
use super::problem::Problem;
use super::{Shown, areas, ioases};
use crate::actors::messages::questions::{
    Outlook, OutlookFor, PayerOf, PayerReport, Pinning, Placement, Prospect,
};
use crate::actors::payer::ChargeOutlook;
use crate::error::Coded;
use crate::storage::among::Worded;
use crate::storage::io_pagetable::{AreaState, LargePages};
use crate::storage::ledger::bill::{LimitedBy, LockedStanding};
use crate::storage::ledger::counter::Figure;
use crate::storage::ledger::holder::Holder;
use crate::storage::ledger::resource::Resource;
use crate::storage::ledger::standing::Standing;
use crate::storage::refusal::Refusal;
use crate::storage::source::{SourceKind, Strength};

/// How a map would end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Explanation {
    /// The address space.
    pub(crate) ioas: u64,
    /// Whether it would succeed, if its memory can be held.
    pub(crate) succeeds: bool,
    /// The first IOVA it would get; `null` if it finds no place.
    pub(crate) start: Option<Hex>,
    /// The last IOVA, inclusive.
    pub(crate) last: Option<Hex>,
    /// What the client would be told.
    pub(crate) refusal: Option<RefusalRow>,
    /// The alignment of every iova, length and offset there.
    pub(crate) alignment: u64,
    /// Who asks for it, the first few of them; nobody does for 1.
    pub(crate) alignment_asked_by: Vec<String>,
    /// Areas in the range asked for, the first few of them.
    pub(crate) areas: Vec<InTheWay>,
    /// How many there are, counted up to 10000.
    pub(crate) areas_found: u64,
    /// Of a fixed place, reserved ranges that it meets; else the first ranges that automatic placement keeps to, or avoids.
    pub(crate) ranges: Vec<RangeRow>,
    /// Whose account would pay for the pins: the process that mapped last, else the opener.
    pub(crate) payer: String,
    /// What would hold the pins.
    pub(crate) strength: String,
    /// Whether pages are pinned by the map itself: there are domains to fill. Else pins are needed later.
    pub(crate) pins_at_once: bool,
    /// Every limit on the way from the payer's context to the host.
    pub(crate) limits: Vec<LimitRow>,
}

/// What a client would be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RefusalRow {
    /// The errno.
    pub(crate) errno: i32,
    /// The stable code.
    pub(crate) code: String,
    /// The text.
    pub(crate) text: String,
}

/// An area in the range asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct InTheWay {
    /// The first IOVA.
    pub(crate) start: Hex,
    /// The last IOVA, inclusive.
    pub(crate) last: Hex,
    /// `ready`, `filling`, `withdrawn` or `retiring`.
    pub(crate) state: String,
}

/// A limit that the map meets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LimitRow {
    /// Whose: `host`, `tenant`, `user` or `context`, and `process` for memory that a process may lock.
    pub(crate) level: String,
    /// Whose, in full.
    pub(crate) holder: String,
    /// Of what: a resource of `/v1/accounts`, or `memlock`.
    pub(crate) resource: String,
    /// In use.
    pub(crate) used: u64,
    /// The soft limit; `null` if there is none.
    pub(crate) soft: Option<u64>,
    /// The hard limit; `null` if there is none.
    pub(crate) hard: Option<u64>,
    /// What the map needs on top; `null` if only the map itself can tell.
    pub(crate) needed: Option<u64>,
    /// Whether the hard limit stands in the way.
    pub(crate) binds: bool,
    /// Whether the map would pass the soft limit.
    pub(crate) passes_soft: bool,
}

/// A permission that is asked for.
struct Allowed(Permission);

impl FromStr for Allowed {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = [Permission::Read, Permission::Write, Permission::ReadWrite];
        let found = all.into_iter().find(|known| areas::permission(*known) == word);
        found.map(Self).ok_or_else(|| format!("{word:?} is no permission: use r, w or rw"))
    }
}

/// A strength or source that is asked for.
struct Asked<T>(T);

impl<T: Worded> FromStr for Asked<T> {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = T::EVERY.iter().copied().find(|known| known.word() == word);
        found.map(Self).ok_or_else(|| format!("{word:?} is none: use one of {}", words::<T>().join(", ")))
    }
}

/// The words for the kinds of a thing.
pub(super) fn words<T: Worded>() -> Vec<&'static str> {
    T::EVERY.iter().copied().map(T::word).collect()
}

/// What `request` asks about.
fn asked(request: &HttpRequest) -> Result<(Prospect, PayerOf), Problem> {
    let mut parameters = Parameters::of(request)?;
    let length: Hex = parameters.need("length", "0x200000")?;
    let iova = parameters.take::<Hex>("iova")?;
    let start = parameters.take::<Hex>("offset")?.map_or(0, |offset| offset.0);
    let permission =
        parameters.take::<Allowed>("permission")?.map_or(Permission::ReadWrite, |allowed| allowed.0);
    let strength = parameters.take::<Asked<Strength>>("strength")?.map(|strength| strength.0);
    let source = parameters.take::<Asked<SourceKind>>("source")?.map(|source| source.0);
    parameters.finish()?;
    let placement = iova.map_or(Placement::Any, |iova| Placement::Fixed(Iova::new(iova.0)));
    let (start, length) = (ByteLen::new(start), ByteLen::new(length.0));
    Ok((Prospect { start, length, permission, placement }, PayerOf { source, strength }))
}

/// The pages that hold the bytes of a map.
const fn pages(prospect: &Prospect) -> u64 {
    (prospect.start.get() % PAGE_SIZE).saturating_add(prospect.length.get()).div_ceil(PAGE_SIZE)
}

pub(super) async fn explain(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let ioas = ioases::asked(&request, &data)?;
    let (prospect, memory) = asked(&request)?;
    let context = ioas.stats.context.get();
    let outlook = ioas.stats.outlook.ask(OutlookFor(prospect)).await;
    let outlook =
        outlook.map_err(|why| Problem::no_answer(format_args!("ioas {}", ioas.number.get()), why))?;
    let absent = || Problem::absent(format_args!("context {context}"));
    let opened = data.view.registry.context(context).ok_or_else(absent)?;
    let paying = opened.stats.payer.ask(memory).await;
    let paying = paying.map_err(|why| Problem::no_answer(format_args!("context {context}"), why))?;
    let pins = if outlook.pinning == Pinning::AtOnce { pages(&prospect) } else { 0 };
    let charge = paying.payer.outlook(pins, paying.strength);
    Ok(shown(&told(ioas.number.get(), &outlook, &paying, charge)))
}

fn told(ioas: u64, outlook: &Outlook, paying: &PayerReport, charge: ChargeOutlook) -> Explanation {
    let account = paying.payer.bill.account().node();
    let unknown = [Resource::Tables, Resource::FirstTouch];
    let unknown = unknown.into_iter().flat_map(|resource| account.standings(resource, None));
    let pins_at_once = outlook.pinning == Pinning::AtOnce;
    let refusal = verdict(outlook, paying, &charge);
    let place = outlook.place.as_ref().ok();
    let locked = charge.locked.map(|standing| locked_row(account.holder(), &standing));
    let known = outlook.areas_allowed.iter().cloned().chain(charge.standings).chain(unknown);
    Explanation {
        ioas,
        succeeds: refusal.is_none(),
        start: place.map(|place| Hex(place.start().get())),
        last: place.map(|place| Hex(place.last().get())),
        refusal: refusal.map(|refusal| refusal_row(&refusal)),
        alignment: outlook.alignment,
        alignment_asked_by: askers(outlook),
        areas: outlook.areas.iter().map(in_the_way).collect(),
        areas_found: outlook.area_count,
        ranges: outlook.rules.iter().map(ruled).collect(),
        payer: account.holder().to_string(),
        strength: paying.strength.name().to_owned(),
        pins_at_once,
        limits: locked.into_iter().chain(known.map(|standing| limit_row(&standing))).collect(),
    }
}

/// The first thing that refuses: rights are asked for before a place is looked for, and that before pages are charged.
fn verdict(outlook: &Outlook, paying: &PayerReport, charge: &ChargeOutlook) -> Option<Refusal> {
    let (denied, no_place) = (paying.allowed.as_ref().err(), outlook.place.as_ref().err());
    let refused = denied.or(no_place).cloned();
    refused.or_else(|| charge.charged.as_ref().err().map(Refusal::of))
}

fn refusal_row(refusal: &Refusal) -> RefusalRow {
    RefusalRow {
        errno: refusal.errno().raw_os_error(),
        code: refusal.code().to_owned(),
        text: refusal.to_string(),
    }
}

fn askers(outlook: &Outlook) -> Vec<String> {
    let setting = (outlook.large_pages == LargePages::Off).then(|| "large pages are switched off".to_owned());
    outlook.alignment_owners.iter().map(ToString::to_string).chain(setting).collect()
}

fn in_the_way((range, state): &(IovaRange, AreaState)) -> InTheWay {
    let (start, last) = (Hex(range.start().get()), Hex(range.last().get()));
    InTheWay { start, last, state: areas::state(*state).to_owned() }
}

fn limit_row(standing: &Standing) -> LimitRow {
    let Figure { used, limit, .. } = standing.figure;
    let set = |limit: u64| Some(limit).filter(|limit| *limit != u64::MAX);
    LimitRow {
        level: standing.holder.level().name().to_owned(),
        holder: standing.holder.to_string(),
        resource: standing.resource.name().to_owned(),
        used,
        soft: set(limit.soft),
        hard: set(limit.hard),
        needed: standing.needed,
        binds: standing.binds(),
        passes_soft: standing.is_told_of(),
    }
}

/// A limit for locked memory, in bytes like those of the accounts.
fn locked_row(who: &Holder, standing: &LockedStanding) -> LimitRow {
    let LockedStanding { account, used, needed, limit } = standing;
    let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
    let user = who.uid().map(|uid| format!("user {uid}")).unwrap_or_default();
    let holder = match account {
        LimitedBy::User => user,
        LimitedBy::Process => format!("a process of {user}"),
    };
    let hard = Some(limit.0).filter(|pages| *pages != u64::MAX).map(bytes);
    LimitRow {
        level: account.name().to_owned(),
        holder,
        resource: "memlock".to_owned(),
        used: bytes(used.get()),
        soft: None,
        hard,
        needed: Some(bytes(*needed)),
        binds: standing.binds(),
        passes_soft: false,
    }
}
