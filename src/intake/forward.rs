//! What goes to a next hop: the relay's task, for what is forwarded at once and for what an admin lets out of quarantine.

use super::changes::Changes;
use crate::config::Config;
use crate::mail::{Address, Message, Recipient, Timestamp};
use crate::rules::outcome::ForwardTo;
use crate::store::{Decider, NewDelivery, RelayTask, Task};

/// `recipient`'s mail, decided on by that worker, to there, with these fields before it and these changes of its own.
pub(super) fn delivery(
    config: &Config,
    recipient: &Recipient,
    to: &ForwardTo,
    headers: &[(String, String)],
    changes: &Changes,
    (by, due): (Option<&Decider>, Timestamp),
) -> NewDelivery {
    let original = &recipient.address;
    let (target, via) = match to {
        ForwardTo::Address(address) => (address.clone(), None),
        ForwardTo::Destination(name) => (original.clone(), Some(name.clone())),
    };
    // Tells us, should it come back, that it has been here (see `decide::loops`).
    let mut fields = vec![("Delivered-To".to_owned(), original.to_string())];
    fields.extend_from_slice(headers);
    fields.extend(changes.added());
    let destination = config.relay_queue(&target, via.as_deref());
    let task = Task::Relay(RelayTask {
        recipient: target,
        original: original.clone(),
        notify: recipient.notify,
        orcpt: recipient.orcpt.clone(),
        via,
        headers: fields,
        removed: changes.removed.clone(),
        own: false,
        by: by.cloned(),
    });
    NewDelivery { task, destination, due }
}

/// An address, or a destination by its name.
pub(super) fn target(config: &Config, target: &str) -> ForwardTo {
    match Address::parse(target) {
        Ok(address) if config.destination(target).is_none() => ForwardTo::Address(address),
        _ => ForwardTo::Destination(target.to_owned()),
    }
}

/// The deliveries of a message that leaves its quarantine: to each recipient by `[relay]`, or by `to` elsewhere.
///
/// # Errors
/// In words: nobody to send it to, no such destination, or a way that leads back here.
pub fn released(
    config: &Config,
    message: &Message,
    recipients: &[&Recipient],
    to: &[String],
    now: Timestamp,
) -> Result<Vec<NewDelivery>, String> {
    let Some(first) = recipients.first() else {
        return Err("its trace names nobody for whom it was put into quarantine".to_owned());
    };
    let changes = Changes::of(message);
    let mut deliveries = Vec::new();
    if to.is_empty() {
        for recipient in recipients {
            if config.relay.smarthost.is_none() {
                let text = format!(
                    "mail for {} comes here, and no [relay] smarthost says where else it lives: name an address or a \
                     destination by --to",
                    recipient.address
                );
                return Err(text);
            }
            let to = ForwardTo::Address(recipient.address.clone());
            deliveries.push(delivery(config, recipient, &to, &[], &changes, (None, now)));
        }
    }
    for named in to {
        match target(config, named) {
            ForwardTo::Destination(name) if config.destination(&name).is_none() => {
                return Err(format!("--to {name:?} is neither an address nor a [[destination]]"));
            }
            to @ ForwardTo::Destination(_) => {
                deliveries
                    .extend(recipients.iter().map(|each| delivery(config, each, &to, &[], &changes, (None, now))));
            }
            to @ ForwardTo::Address(_) => deliveries.push(delivery(config, first, &to, &[], &changes, (None, now))),
        }
    }
    Ok(deliveries)
}
