//! Times as text: RFC 3339 to nanoseconds and back, durations as Go writes them. No time zone data is read.

pub use brig_monitor::logfile::rfc3339;

/// Reads a time of RFC 3339, with any offset and up to nine decimals, as nanoseconds since 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20
        || !text.is_ascii()
        || bytes[4] != b'-'
        || bytes[7] != b'-'
        || bytes[13] != b':'
        || bytes[16] != b':'
    {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0;
    if let Some(decimals) = rest.strip_prefix('.') {
        let length = decimals.bytes().take_while(u8::is_ascii_digit).count();
        let digits = decimals.get(..length.min(9))?;
        nanos = format!("{digits:0<9}").parse::<i64>().ok()?;
        rest = &decimals[length..];
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = rest[1..].split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?).ok()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Reads a duration as Go writes it, `1h30m`, `1.5s`, `100ms`, in nanoseconds.
pub fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let value: f64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        total += value
            * match rest.get(..letters)? {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded and not negative")]
    (total < 9e18).then_some(total as u64)
}

/// Reads a point in time as `logs --since` takes it: RFC 3339, a date, seconds since 1970, or so long ago.
pub fn parse_moment(text: &str, now_ns: u64) -> Option<u64> {
    if let Some(ns) = parse_duration(text) {
        return Some(now_ns.saturating_sub(ns));
    }
    if let Some(ns) = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}Z"))) {
        return Some(ns);
    }
    if let Some(ns) = parse_rfc3339(&format!("{text}T00:00:00Z")) {
        return Some(ns);
    }
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, ""));
    let nanos = if decimals.is_empty() { 0 } else { format!("{decimals:0<9.9}").parse().ok()? };
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        for ns in [0, 951_827_696_000_000_001, 1_795_309_323_123_456_789, 4_102_444_800_000_000_000] {
            assert_eq!(parse_rfc3339(&rfc3339(ns)), Some(ns));
        }
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00.5+01:00"), Some(500_000_000));
        for bad in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00+1",
            "x970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_and_moments() {
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("1.5s"), Some(1_500_000_000));
        for bad in ["", "5", "h", "1x", "-1s", "1..2s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        let now = 10_000_000_000_000;
        assert_eq!(parse_moment("10m", now), Some(9_400_000_000_000));
        assert_eq!(parse_moment("12", now), Some(12_000_000_000));
        assert_eq!(parse_moment("12.25", now), Some(12_250_000_000));
        assert_eq!(parse_moment("1970-01-02", now), Some(86_400_000_000_000));
        assert_eq!(parse_moment("1970-01-01T00:00:01", now), Some(1_000_000_000));
        assert_eq!(parse_moment("soon", now), None);
    }
}
