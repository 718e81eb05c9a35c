//! Lists of processors and memory nodes, such as `0-3,7`, as the bits that the kernel takes.

/// Reads a list: a bit for each number, the first byte has the first eight. Spaces and empty parts do no harm. Errors, in words:
/// it is no list, it has no number, or one that is not below `most`.
pub(crate) fn of(list: &str, most: usize) -> Result<Vec<u8>, String> {
    let number = |text: &str| match text.parse::<u64>().map(usize::try_from) {
        Ok(Ok(number)) if number < most => Ok(number),
        Ok(_) => Err(format!("{text} is more than {}", most - 1)),
        Err(_) => Err(format!("`{text}` is not a number")),
    };
    let mut bytes = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        if from > to {
            return Err(format!("`{part}` ends before it begins"));
        }
        if bytes.len() <= to / 8 {
            bytes.resize(to / 8 + 1, 0u8);
        }
        (from..=to).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    }
    if bytes.is_empty() { Err("no number is in it".into()) } else { Ok(bytes) }
}

/// Counts the bits.
pub(crate) fn count(bits: &[u8]) -> u32 {
    bits.iter().map(|byte| byte.count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_bits() {
        for (list, bits) in [
            ("0", &[1][..]),
            (" 1, 3-5,", &[0b11_1010]),
            ("5-8", &[0b1110_0000, 1]),
            ("15", &[0, 0x80]),
            ("0-7", &[0xff]),
        ] {
            assert_eq!(of(list, 16).as_deref(), Ok(bits), "{list}");
        }
        for bad in ["", ",", "a", "3-1", "-1", "1-", "16", "0-9876543210", "99999999999999999999", "1-2-3", "+"] {
            assert!(of(bad, 16).is_err(), "{bad}");
        }
        assert_eq!(count(&[0xff, 1]), 9);
    }
}
