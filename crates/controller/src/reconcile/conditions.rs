//! Conditions in the standard form.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use pod::Text;

/// The specification and what it names are as they must be.
pub(super) const VALIDATED: &str = "Validated";
/// Namespaces and claims at the destination are there, and pods can be made.
pub(super) const PREPARED: &str = "Prepared";
/// Nobody uses the volumes at the source.
pub(super) const QUIESCED: &str = "Quiesced";
/// The last run moved everything.
pub(super) const SUCCEEDED: &str = "Succeeded";

/// No pod used the claims at the destination while they were filled.
pub(super) const TARGETS_UNUSED: &str = "TargetsUnused";
/// Nothing of a run that a rollback ended is left.
pub(super) const CLEANED_UP: &str = "CleanedUp";

/// Sets a condition; `None` is unknown. Its time changes with its status only.
pub(super) fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    is: Option<bool>,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) {
    let status = match is {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = conditions.iter().position(|condition| condition.type_ == kind);
    let since = before
        .and_then(|at| conditions.get(at))
        .filter(|condition| condition.status == status)
        .map_or_else(
            || Time(whole_seconds(now)),
            |condition| condition.last_transition_time.clone(),
        );
    let condition = Condition {
        type_: kind.into(),
        status: status.into(),
        reason: Text::from(reason).into(),
        message: Text::from(message).into(),
        last_transition_time: since,
        observed_generation: Some(generation),
    };
    match before.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// The API keeps whole seconds.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
