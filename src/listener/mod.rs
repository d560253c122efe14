//! Sockets: binds, accepts, limits who may connect and how often, and drives an [`smtp::Session`](crate::smtp::Session)
//! over each connection.
//!
//! Input: connections. Output: [`Question`](crate::smtp::Question)s to the [`Answerer`] (intake), replies to the peer,
//! [`Event`](crate::event::Event)s. One task a connection; a panic in one ends that one alone.
//!
//! Must never: close on a peer without a reason said (421 4.7.0), hold a slot for a peer that has gone, cut short an
//! answer under way (an acceptance runs to its end even if its client has left), or hold more octets of mail than the
//! [`Budget`] has, or for one network more than its share of them. `arrival` makes a stream and a client of a socket;
//! `times` keeps the moments.
//!
//! Standards: RFC 5321 §3.1, §4.5.3.2, RFC 3207, RFC 8314; the PROXY protocol, versions 1 and 2.

mod arrival;
mod bind;
pub mod budget;
mod connection;
pub mod limits;
mod proxy;
mod serve;
pub mod socket;
mod stream;
mod times;
pub mod tls;
pub mod visit;

pub use arrival::settings_for;
pub use bind::ListenError;
pub use budget::{Budget, Full, Reservation};
pub use serve::{Bound, Listeners, Parts};
pub use tls::TlsState;
pub use visit::{Answerer, End, Visit};
