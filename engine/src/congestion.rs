//! Congestion control by quinn's Cubic, with a way past it for a session's goodbye.
//!
//! quinn holds a CONNECTION_CLOSE back like any other packet while streams have unsent data and the congestion window is
//! full; and once closed it reads no acknowledgements, so that the window never opens: the remote would hear of a close in
//! the middle of a transfer only by its idle timeout. RFC 9002, section 7, wants the packet sent.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Larger than anything in flight; quinn does not pace windows above `u32::MAX`.
const OPEN_WINDOW: u64 = 1 << 40;

/// Lets one session's goodbye pass.
#[derive(Clone, Default)]
pub struct Goodbye(Arc<AtomicBool>);

impl Goodbye {
    /// From now on nothing is held back: to be called when only the CONNECTION_CLOSE is left to send.
    pub fn let_pass(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ControllerFactory for Goodbye {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(CubicUntilGoodbye {
            cubic: Arc::new(CubicConfig::default()).build(now, current_mtu),
            goodbye: (*self).clone(),
        })
    }
}

struct CubicUntilGoodbye {
    cubic: Box<dyn Controller>,
    goodbye: Goodbye,
}

impl Controller for CubicUntilGoodbye {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.goodbye.0.load(Ordering::Relaxed) {
            OPEN_WINDOW
        } else {
            self.cubic.window()
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            goodbye: self.goodbye.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
