//! The tasks beside the mail: each runs until the stop, and nobody waits for one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Answering;
use crate::event::{Bus, Event, Kind};
use crate::intake::Current;
use crate::store::releases::{Change, Stop};
use crate::store::{Store, StoreError};
use crate::{clock, telemetry};

/// How often the store looks for what retention no longer keeps.
const RETENTION_EVERY: Duration = Duration::from_mins(1);
/// Half of what retention waits between two steps, by how long the first took.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked at how a release on trial does.
const TRIAL_EVERY: Duration = Duration::from_millis(500);
/// How often the gauges are read.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// Deletes what retention no longer keeps, in small steps; between two of them mail has twice as long for itself.
pub async fn retention(store: Store, bus: Bus, stopping: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(RETENTION_EVERY);
    while beats(&mut timer, &stopping).await {
        loop {
            let began = tokio::time::Instant::now();
            match store.retain(clock::now()).await {
                Ok(true) => tokio::select! {
                    biased;
                    () = tokio::time::sleep(2 * began.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
                    () = stopped(stopping.clone()) => return,
                },
                Ok(false) | Err(StoreError::Closed) => break,
                Err(error) => {
                    let kind = Kind::Fault { what: "retention".into(), detail: error.to_string() };
                    bus.publish(Event::new(clock::now(), kind));
                    break;
                }
            }
        }
    }
}

/// Runs what the configuration plans. A run that has begun ends before the stop goes on.
pub(super) async fn keep_time(answerer: Arc<Answering>, stopping: watch::Receiver<bool>) {
    loop {
        let pause = answerer.intake.keep_time().await;
        tokio::select! {
            biased;
            () = stopped(stopping.clone()) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What an admin has put into the store is taken up as a change of the files is.
pub(super) async fn notice(store: Store, nudge: impl Fn() + Send, stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = stopped(stopping.clone()) => return,
            () = store.deployed() => nudge(),
        }
    }
}

/// Gives up a release on trial whose runs fail too often.
pub(super) async fn watch_trial(store: Store, bus: Bus, current: Current, stopping: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(TRIAL_EVERY);
    while beats(&mut timer, &stopping).await {
        let snapshot = current.load();
        let failing = snapshot.canary().and_then(|canary| Some((canary.id, canary.verdict()?)));
        let Some((release, reason)) = failing else { continue };
        let (env, at) = (snapshot.config.env_name.clone(), clock::now());
        let stop = Stop { env: env.clone(), release, reason: reason.clone(), at };
        // What fails is tried again; that it is tried no more already is as good.
        if store.change_release(Change::Stop(stop)).await.is_ok() {
            bus.publish(Event::new(at, Kind::CanaryStopped { env, release, reason }));
        }
    }
}

/// Keeps the store's gauges up to date.
pub(super) async fn gauges(store: Store, stopping: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(GAUGES_EVERY);
    while beats(&mut timer, &stopping).await {
        if let Ok(gauges) = store.gauges().await {
            telemetry::gauges(&gauges);
        }
    }
}

/// Waits for the next beat; `false`: the stop is asked for.
async fn beats(timer: &mut tokio::time::Interval, stopping: &watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        _ = timer.tick() => true,
        () = stopped(stopping.clone()) => false,
    }
}

/// Ends when the stop is asked for.
pub(super) async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _the_app_is_gone = stopping.wait_for(|stop| *stop).await;
}
