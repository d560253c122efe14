//! Endpoints of webhooks, and the way of the server's requests to them: HTTP/1.1 over the simulated network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Heard;
use crate::lines::Lines;
use crate::pipe::Pipe;
use crate::plan::{Hearing, ear_address};
use crate::world::World;

const LARGEST: usize = 1 << 20;

pub fn listen(world: &Arc<World>, ear: usize) {
    let mut arrivals = world.listen(ear_address(ear));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        while let Some((pipe, _)) = arrivals.recv().await {
            let hearing = world.plan.hearing(ear, world.now());
            tokio::spawn(serve(Arc::clone(&world), pipe, ear, hearing));
        }
    });
}

async fn serve(world: Arc<World>, pipe: Pipe, ear: usize, hearing: Hearing) {
    if hearing != Hearing::Well {
        world.fault();
    }
    let mut lines = Lines::new(pipe);
    if let Ok(false) = answer(&world, &mut lines, ear, hearing).await {
        lines.reset();
    }
}

/// False: the connection is to be reset.
async fn answer(world: &Arc<World>, lines: &mut Lines, ear: usize, hearing: Hearing) -> io::Result<bool> {
    let head = String::from_utf8_lossy(&lines.until(b"\r\n\r\n", LARGEST).await?).into_owned();
    let field = |name: &str| {
        let found =
            head.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let body = lines.exactly(field("content-length").parse().unwrap_or(0)).await?;
    match hearing {
        Hearing::Hang => {
            lines.wait_for_end().await;
            return Ok(true);
        }
        Hearing::Reset => return Ok(false),
        Hearing::Garbage => {
            lines.send(b"\x01\x02 no HTTP at all\r\n\r\n").await?;
            return Ok(true);
        }
        Hearing::Status(status, after) => {
            if status == 410 {
                world.ledger().gone.insert(ear);
            }
            let after = after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
            lines.send(format!("HTTP/1.1 {status} No\r\n{after}content-length: 2\r\n\r\nno").as_bytes()).await?;
            lines.wait_for_end().await;
            return Ok(true);
        }
        _ => {}
    }
    let group = String::from_utf8_lossy(&body).split('"').rev().nth(1).unwrap_or_default().to_owned();
    let at = {
        let mut ledger = world.ledger();
        ledger.heard.push(Heard { group, id: field("webhook-id"), answered: None, excused: false });
        ledger.heard.len() - 1
    };
    match hearing {
        Hearing::TakesAndHangs => {
            lines.wait_for_end().await;
            return Ok(true);
        }
        Hearing::TakesAndResets => return Ok(false),
        Hearing::Late(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
        _ => {}
    }
    lines.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    let mark = lines.mark();
    world.ledger().heard[at].answered = Some(mark);
    lines.wait_for_end().await;
    Ok(true)
}
