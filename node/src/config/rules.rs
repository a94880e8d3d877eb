//! What must hold between keys.

use holm_protocol::limits::{CONTEXT_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};

use super::{Config, ConfigError};

/// The least that `limits.reply_bytes_per_lane_max` may be: an answer with one value of full length.
pub(super) const REPLY_BYTES_MIN: usize =
    VALUE_LEN_MAX + KEY_LEN_MAX + CONTEXT_LEN_MAX + (64 << 10);

/// What must hold between keys.
///
/// # Errors
/// [`ConfigError::Relation`] for the first that does not.
pub fn relations(config: &Config) -> Result<(), ConfigError> {
    let Config { limits, net, store, membership, .. } = config;
    let checks = [
        (
            net.keepalive * 3 <= net.idle_timeout,
            ("net.keepalive_ms", net.keepalive.as_millis()),
            format!("at most a third of net.idle_timeout_ms ({})", net.idle_timeout.as_millis()),
        ),
        (
            net.reconnect_min <= net.reconnect_max,
            ("net.reconnect_min_ms", net.reconnect_min.as_millis()),
            format!("at most net.reconnect_max_ms ({})", net.reconnect_max.as_millis()),
        ),
        (
            net.reconnect_max <= net.reconnect_away_max,
            ("net.reconnect_max_ms", net.reconnect_max.as_millis()),
            format!("at most net.reconnect_away_max_ms ({})", net.reconnect_away_max.as_millis()),
        ),
        (
            membership.probe_timeout * 2 <= membership.probe_interval,
            ("membership.probe_timeout_ms", membership.probe_timeout.as_millis()),
            format!(
                "at most half of membership.probe_interval_ms ({}): the rest is for answers through others",
                membership.probe_interval.as_millis()
            ),
        ),
        (
            membership.suspicion >= membership.probe_interval,
            ("membership.suspicion_ms", membership.suspicion.as_millis()),
            format!(
                "at least membership.probe_interval_ms ({})",
                membership.probe_interval.as_millis()
            ),
        ),
        (
            store.write_buffer_bytes <= store.cache_bytes,
            ("store.write_buffer_bytes", store.write_buffer_bytes as u128),
            format!("at most store.cache_bytes ({}), to which it is charged", store.cache_bytes),
        ),
        (
            limits.in_flight_per_connection_max as usize <= limits.in_flight_max,
            ("limits.in_flight_per_connection_max", limits.in_flight_per_connection_max.into()),
            format!("at most limits.in_flight_max ({})", limits.in_flight_max),
        ),
        (
            limits.handshakes_max <= limits.connections_max,
            ("limits.handshakes_max", limits.handshakes_max as u128),
            format!("at most limits.connections_max ({})", limits.connections_max),
        ),
        (
            limits.reply_bytes_per_lane_max >= REPLY_BYTES_MIN,
            ("limits.reply_bytes_per_lane_max", limits.reply_bytes_per_lane_max as u128),
            format!("at least {REPLY_BYTES_MIN}: one answer with the largest value"),
        ),
        (
            limits.reply_bytes_per_lane_max <= limits.reply_bytes_max,
            ("limits.reply_bytes_per_lane_max", limits.reply_bytes_per_lane_max as u128),
            format!("at most limits.reply_bytes_max ({})", limits.reply_bytes_max),
        ),
    ];
    for (holds, (key, got), must) in checks {
        if !holds {
            return Err(ConfigError::Relation { key, got, must });
        }
    }
    Ok(())
}
