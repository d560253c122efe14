//! The units of one group in one transaction: each leaves all of its rows and octets, or none.
//!
//! Nearly always nobody is refused, so they are applied as they are; where one is, all begin anew with a savepoint for
//! each, which costs a copy of every page that is changed.

use super::{Outcome, Unit, Work};
use crate::store::StoreError;
use crate::store::apply::{Refusal, Writing};

/// Applies all that can be applied, in an open transaction. An error is about all of them.
pub(super) fn apply(units: &[Unit], writing: &mut Writing<'_>) -> Result<Vec<Outcome>, StoreError> {
    match all(units, writing)? {
        Some(outcomes) => Ok(outcomes),
        None => each(units, writing),
    }
}

/// Applies all. `None`: one of them was refused, and nothing of any is left.
fn all(units: &[Unit], writing: &mut Writing<'_>) -> Result<Option<Vec<Outcome>>, StoreError> {
    let (begun, mut outcomes) = (writing.plan.mark(), Vec::with_capacity(units.len()));
    for unit in units {
        let outcome = unit.work.apply(writing);
        match &outcome {
            Ok(_) => {}
            // SQLite has rolled the whole transaction back.
            Err(Refusal::Error(error)) if writing.connection.is_autocommit() => return Err(error.clone()),
            // A key is looked at before anything is written.
            Err(Refusal::Overtaken) if matches!(unit.work, Work::Accept(_)) => {}
            Err(_) => {
                writing.connection.prepare_cached("ROLLBACK")?.execute([])?;
                writing.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
                writing.plan.back_to(begun);
                return Ok(None);
            }
        }
        outcomes.push(outcome);
    }
    Ok(Some(outcomes))
}

/// Applies each below a savepoint of its own, so that who is refused takes nobody else along.
fn each(units: &[Unit], writing: &mut Writing<'_>) -> Result<Vec<Outcome>, StoreError> {
    let (connection, mut outcomes) = (writing.connection, Vec::with_capacity(units.len()));
    for unit in units {
        let mark = writing.plan.mark();
        connection.prepare_cached("SAVEPOINT unit")?.execute([])?;
        let outcome = unit.work.apply(writing);
        if let Err(refusal) = &outcome {
            if let (Refusal::Error(error), true) = (refusal, connection.is_autocommit()) {
                // SQLite has rolled the whole transaction back.
                return Err(error.clone());
            }
            connection.prepare_cached("ROLLBACK TO unit")?.execute([])?;
            writing.plan.back_to(mark);
        }
        connection.prepare_cached("RELEASE unit")?.execute([])?;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
