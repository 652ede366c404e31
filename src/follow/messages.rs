//! The messages of 2013, as they come.

use std::time::Duration;

use redis::Connection;

use crate::sink::server::{Servers, Trouble};

/// How long to wait for a message before somebody may ask for the end.
const TURN: Duration = Duration::from_millis(500);

/// Takes a message, or word that none came for a while; whether to go on.
pub type Take<'a> = dyn FnMut(Option<(&[u8], &[u8])>) -> bool + 'a;

/// Call `take` with channel and document of each message on channels that match `pattern`, and with
/// `None` when nothing came for a while, until it returns false or the connection breaks.
pub fn listen(servers: &Servers, pattern: &str, take: &mut Take<'_>) -> Result<(), Trouble> {
    let mut connection: Connection = servers.any()?;
    let mut heard = connection.as_pubsub();
    heard.psubscribe(pattern)?;
    heard.set_read_timeout(Some(TURN))?;
    if !take(None) {
        return Ok(());
    }
    loop {
        let more = match heard.get_message() {
            Ok(m) => {
                let channel: Vec<u8> = m.get_channel().map_err(|e| Trouble::new(&e))?;
                take(Some((&channel, m.get_payload_bytes())))
            }
            Err(e) if e.is_timeout() => take(None),
            Err(e) => return Err(e.into()),
        };
        if !more {
            return Ok(());
        }
    }
}
