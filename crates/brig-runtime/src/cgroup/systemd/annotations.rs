//! `org.systemd.property.NAME` annotations: properties of the container's unit, each a name and a typed value.
//!
//! ```text
//! org.systemd.property.TimeoutStopUSec: uint64 123456789
//! org.systemd.property.CollectMode:     'inactive-or-failed'
//! org.systemd.property.TimeoutStopSec:  5                      (seconds: becomes TimeoutStopUSec)
//! org.systemd.property.BindsTo:         refused
//! ```
//!
//! Annotations often come from people who may start containers and nothing else. A property can start and stop other units
//! of the machine, or reboot it, so only those are taken that are about the container's own limits, order and end.

use super::properties::Property;
use super::wire::Value;
use crate::error::Error;
use std::collections::BTreeMap;

const PREFIX: &str = "org.systemd.property.";

/// The properties that a container may have; systemd.unit(5), systemd.scope(5), systemd.kill(5), systemd.resource-control(5).
const ALLOWED: [&str; 66] = [
    "After",
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "Before",
    "BlockIOAccounting",
    "BlockIOReadBandwidth",
    "BlockIOWeight",
    "BlockIOWriteBandwidth",
    "CPUAccounting",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "CPUShares",
    "CPUWeight",
    "CollectMode",
    "DefaultDependencies",
    "DefaultMemoryLow",
    "DefaultMemoryMin",
    "Description",
    "DisableControllers",
    "Documentation",
    "FinalKillSignal",
    "IOAccounting",
    "IODeviceLatencyTargetUSec",
    "IODeviceWeight",
    "IOReadBandwidthMax",
    "IOReadIOPSMax",
    "IOWeight",
    "IOWriteBandwidthMax",
    "IOWriteIOPSMax",
    "IPAccounting",
    "IPAddressAllow",
    "IPAddressDeny",
    "IgnoreOnIsolate",
    "JobRunningTimeoutUSec",
    "JobTimeoutUSec",
    "KillMode",
    "KillSignal",
    "ManagedOOMMemoryPressure",
    "ManagedOOMMemoryPressureLimit",
    "ManagedOOMPreference",
    "ManagedOOMSwap",
    "MemoryAccounting",
    "MemoryHigh",
    "MemoryLimit",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "MemoryZSwapMax",
    "MemoryZSwapWriteback",
    "OOMPolicy",
    "RestartKillSignal",
    "RuntimeMaxUSec",
    "RuntimeRandomizedExtraUSec",
    "SendSIGHUP",
    "SendSIGKILL",
    "StartupAllowedCPUs",
    "StartupAllowedMemoryNodes",
    "StartupCPUShares",
    "StartupCPUWeight",
    "StartupIOWeight",
    "StopWhenUnneeded",
    "TasksAccounting",
    "TasksMax",
    "TimeoutStopUSec",
    "WatchdogSignal",
];

/// Reads the properties among a container's annotations, sorted by name.
pub(super) fn parse(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Error> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let wrong = |why: String| Error::invalid(format!("use the annotation {key}={text}"), why);
        if name.len() < 3 {
            return Err(wrong(format!("annotation {key} name incorrect: too short")));
        }
        if !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(wrong(format!("annotation {key} name incorrect: contains non-alphabetic character")));
        }
        let value =
            parse_value(text).map_err(|why| wrong(format!("annotation {key}={text} value parse error: {why}")))?;
        let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
        let property = match seconds {
            None => Property { name: name.to_owned(), value },
            Some(stem) => {
                let value = microseconds(&value).ok_or_else(|| {
                    wrong(format!("annotation {key}={text} value parse error: not a number of seconds"))
                })?;
                Property { name: format!("{stem}USec"), value: Value::U64(value) }
            }
        };
        if !ALLOWED.contains(&property.name.as_str()) {
            return Err(wrong(format!(
                "the property {} reaches beyond the container's own limits, or is not known; it is not taken",
                property.name
            )));
        }
        found.push(property);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn microseconds(value: &Value) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole = match *value {
        Value::Byte(v) => u64::from(v),
        Value::I16(v) => u64::try_from(v).ok()?,
        Value::U16(v) => u64::from(v),
        Value::I32(v) => u64::try_from(v).ok()?,
        Value::U32(v) => u64::from(v),
        Value::I64(v) => u64::try_from(v).ok()?,
        Value::U64(v) => v,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 1e12, and not negative
        Value::F64(v) if (0.0..1e12).contains(&v) => return Some((v * 1e6) as u64),
        _ => return None,
    };
    whole.checked_mul(SECOND)
}

/// Reads one value in GLib's text format of variants, as far as properties need it: booleans, numbers and strings, with or
/// without their type's name before them, and arrays of these.
pub(super) fn parse_value(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None)?;
    parser.skip_space();
    if parser.rest.is_empty() { Ok(value) } else { Err(format!("`{}` follows the value", parser.rest)) }
}

/// The names of the types, and their signatures.
const TYPES: [(&str, char); 12] = [
    ("boolean", 'b'),
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
    ("string", 's'),
    ("objectpath", 'o'),
    ("signature", 'g'),
];

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn skip(&mut self, text: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads a value; `wanted` is its signature where that is known already.
    fn value(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        self.skip_space();
        let begin = self.rest.chars().next().ok_or("the value is missing")?;
        match begin {
            '@' if wanted.is_none() => {
                let end = self.rest.find(char::is_whitespace).ok_or("a type stands there without a value")?;
                let (signature, rest) = self.rest.split_at(end);
                self.rest = rest;
                let known = |c: char| TYPES.iter().any(|(_, code)| *code == c);
                let signature = &signature[1..];
                let element = signature.strip_prefix('a').unwrap_or(signature);
                if element.len() != 1 || !element.chars().all(known) {
                    return Err(format!("`{signature}` is not a type that a property has here"));
                }
                self.value(Some(signature))
            }
            '[' => self.array(wanted),
            '\'' | '"' => self.text().and_then(|text| typed_text(text, wanted.unwrap_or("s"))),
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(wanted),
            _ => {
                let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                let value = match word {
                    "true" | "false" if wanted.is_none_or(|wanted| wanted == "b") => Value::Bool(word == "true"),
                    _ => {
                        let (_, code) = TYPES
                            .iter()
                            .find(|(name, _)| *name == word && wanted.is_none())
                            .ok_or_else(|| format!("`{}` is neither a value nor a type", self.rest))?;
                        if !rest.starts_with(char::is_whitespace) {
                            return Err("a type stands there without a value".into());
                        }
                        self.rest = rest;
                        return self.value(Some(&code.to_string()));
                    }
                };
                self.rest = rest;
                Ok(value)
            }
        }
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let mut element = match wanted {
            None => None,
            Some(signature) => {
                Some(signature.strip_prefix('a').ok_or("an array stands where a single value must")?.to_owned())
            }
        };
        self.skip("[");
        let mut values = Vec::new();
        if !self.skip("]") {
            loop {
                let value = self.value(element.as_deref())?;
                let signature = value.signature();
                if element.get_or_insert_with(|| signature.clone()) != &signature {
                    return Err("the array's values are of different types".into());
                }
                values.push(value);
                if self.skip("]") {
                    break;
                }
                if !self.skip(",") {
                    return Err("the array does not end".into());
                }
            }
        }
        let element = element.ok_or("the type of an empty array is not known: write `@as []` or the like")?;
        if element.starts_with('a') {
            return Err("an array lies in an array".into());
        }
        Ok(Value::Array(element, values))
    }

    fn number(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let bad = || format!("`{text}` is not a number of its type");
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let whole = if let Some(hex) = digits.strip_prefix("0x") {
            i128::from_str_radix(hex, 16).ok()
        } else if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
            i128::from_str_radix(digits, 8).ok()
        } else {
            digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
        };
        let whole = whole.filter(|_| !digits.starts_with(['+', '-'])).map(|n: i128| if negative { -n } else { n });
        let integer = || whole.ok_or_else(bad);
        Ok(match wanted.unwrap_or(if whole.is_some() { "i" } else { "d" }) {
            "y" => Value::Byte(integer()?.try_into().map_err(|_| bad())?),
            "n" => Value::I16(integer()?.try_into().map_err(|_| bad())?),
            "q" => Value::U16(integer()?.try_into().map_err(|_| bad())?),
            "i" => Value::I32(integer()?.try_into().map_err(|_| bad())?),
            "u" => Value::U32(integer()?.try_into().map_err(|_| bad())?),
            "x" => Value::I64(integer()?.try_into().map_err(|_| bad())?),
            "t" => Value::U64(integer()?.try_into().map_err(|_| bad())?),
            "d" => Value::F64(text.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(bad)?),
            _ => return Err(bad()),
        })
    }

    /// Reads a quoted text with the escapes of C.
    fn text(&mut self) -> Result<String, String> {
        let mut characters = self.rest.char_indices();
        let (_, quote) = characters.next().ok_or("the text is missing")?;
        let mut text = String::new();
        while let Some((at, c)) = characters.next() {
            match c {
                _ if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(text);
                }
                '\\' => text.push(match characters.next() {
                    Some((_, c @ ('\'' | '"' | '\\'))) => c,
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, other)) => return Err(format!("the escape `\\{other}` is not known")),
                    None => break,
                }),
                '\0' => return Err("the text has a zero byte".into()),
                _ => text.push(c),
            }
        }
        Err("the text does not end".into())
    }
}

fn typed_text(text: String, wanted: &str) -> Result<Value, String> {
    match wanted {
        "s" => Ok(Value::Text(text)),
        "o" if text.starts_with('/') => Ok(Value::Path(text)),
        "g" if text.len() < 256 && text.is_ascii() => Ok(Value::Signature(text)),
        _ => Err(format!("`{text}` is not of its type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> Result<(String, Value), String> {
        let annotations = BTreeMap::from([(format!("{PREFIX}{name}"), text.to_owned()), ("other".into(), "x".into())]);
        parse(&annotations)
            .map(|mut all| all.pop().map(|p| (p.name, p.value)).unwrap())
            .map_err(|error| error.source.to_string())
    }

    #[test]
    fn values_have_their_types() {
        let text = |t: &str| Value::Text(t.into());
        let table = [
            ("true", Value::Bool(true)),
            (" 5 ", Value::I32(5)),
            ("-0x10", Value::I32(-16)),
            ("010", Value::I32(8)),
            ("1.5e3", Value::F64(1500.0)),
            ("uint64 123456789", Value::U64(123_456_789)),
            ("@t 5", Value::U64(5)),
            ("byte 255", Value::Byte(255)),
            ("'a\\'b'", text("a'b")),
            ("\"x;y=z\"", text("x;y=z")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', \"b\"]", Value::Array("s".into(), vec![text("a"), text("b")])),
            ("@au [1,2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("@as []", Value::Array("s".into(), vec![])),
        ];
        for (text, want) in table {
            assert_eq!(parse_value(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        for text in [
            "",
            " ",
            "'",
            "'a",
            "'a\\",
            "'a' 'b'",
            "5 6",
            "5;6",
            "uint64",
            "uint64 -1",
            "byte 256",
            "uint64 'x'",
            "@",
            "@t",
            "@z 5",
            "@aat [[1]]",
            "[",
            "[1",
            "[1,",
            "[1 2]",
            "[1,'a']",
            "[]",
            "[[1]]",
            "[true]]",
            "99999999999999",
            "0x",
            "--5",
            "+-5",
            "1.2.3",
            "inf",
            "nan",
            "true5",
            "truefalse",
            "tru",
            "string 5",
            "@s true",
            "'\\x41'",
            "5\0",
            "'a\0'",
            "<5>",
            "{'a': 1}",
            "(1, 2)",
            "uint64uint64 5",
            "uint64 uint64 5",
            "1e999",
        ] {
            assert!(parse_value(text).is_err(), "{text:?} became {:?}", parse_value(text));
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        let want = |n| Ok(("TimeoutStopUSec".to_owned(), Value::U64(n)));
        for (text, n) in
            [("456", 456_000_000), ("byte 234", 234_000_000), ("234.789", 234_789_000), ("int64 1", 1_000_000)]
        {
            assert_eq!(one("TimeoutStopSec", text), want(n), "{text}");
        }
        assert_eq!(one("TimeoutStopUSec", "uint64 123456789"), want(123_456_789));
        for text in ["false", "'covfefe'", "-5", "uint64 18446744073709551615", "1e300"] {
            assert!(one("TimeoutStopSec", text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_plain_and_properties_the_containers_own() {
        assert_eq!(one("CollectMode", "'inactive-or-failed'").unwrap().0, "CollectMode");
        assert!(one("ab", "5").unwrap_err().contains("too short"));
        for name in ["Foo.Bar", "Foo Bar", "Foo\n", "F\u{f6}\u{f6}", "ExecStart=/bin/sh"] {
            assert!(one(name, "5").unwrap_err().contains("non-alphabetic"), "{name}");
        }
        for name in [
            "SuccessAction",
            "FailureAction",
            "JobTimeoutAction",
            "StartLimitAction",
            "OnFailure",
            "OnSuccess",
            "Wants",
            "Requires",
            "BindsTo",
            "Conflicts",
            "Upholds",
            "PropagatesStopTo",
            "PIDs",
            "Slice",
            "Delegate",
            "ExecStop",
            "DevicePolicy",
            "DeviceAllow",
            "BPFProgram",
            "IPIngressFilterPath",
            "User",
            "Controller",
            "RebootArgument",
        ] {
            assert!(one(name, "'x'").unwrap_err().contains("not taken"), "{name}");
        }
        let mut sorted = ALLOWED;
        sorted.sort_unstable();
        assert_eq!(sorted, ALLOWED);
    }
}
