//! `dimpl`, to which anybody may send anything before they have proved who they are: a panic of it is the end of one session, not of the
//! port.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use dimpl::{Dtls, Error, Output, ProtocolVersion};

/// What it is asked for after a panic has no effect.
pub struct Library {
    dtls: Option<Dtls>,
}

impl From<Dtls> for Library {
    fn from(dtls: Dtls) -> Self {
        Self { dtls: Some(dtls) }
    }
}

impl Library {
    pub fn is_broken(&self) -> bool {
        self.dtls.is_none()
    }

    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.as_ref()?.protocol_version()
    }

    pub fn begin_as_client(&mut self) {
        self.guarded((), |dtls| dtls.set_active(true));
    }

    pub fn handle_packet(&mut self, packet: &[u8]) -> Result<(), Error> {
        self.guarded(Ok(()), |dtls| dtls.handle_packet(packet))
    }

    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.guarded(Ok(()), |dtls| dtls.handle_timeout(now))
    }

    pub fn send_application_data(&mut self, data: &[u8]) -> Result<(), Error> {
        self.guarded(Ok(()), |dtls| dtls.send_application_data(data).map(drop))
    }

    pub fn close(&mut self) -> Result<(), Error> {
        self.guarded(Ok(()), Dtls::close)
    }

    pub fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> Option<Output<'a>> {
        self.guarded(None, |dtls| Some(dtls.poll_output(buffer)))
    }

    fn guarded<R>(&mut self, if_broken: R, ask: impl FnOnce(&mut Dtls) -> R) -> R {
        let Some(dtls) = &mut self.dtls else {
            return if_broken;
        };
        catch_unwind(AssertUnwindSafe(|| ask(dtls))).unwrap_or_else(|_| {
            self.dtls = None;
            if_broken
        })
    }

    #[cfg(test)]
    pub fn break_it(&mut self) {
        self.guarded((), |_| panic!("as the test wants it"));
    }
}
