//! Makes large inputs of small ones. What takes too long at 64 KiB is then found by an input of a few bytes, which a
//! fuzzer comes upon; and the corpus needs no large files.

use serde_json::Value;

/// Gives inputs of about so many bytes.
pub type Grow = fn(&[u8], usize) -> Vec<Vec<u8>>;

/// The input, and its last byte, again and again.
pub fn text(input: &[u8], size: usize) -> Vec<Vec<u8>> {
    let Some(last) = input.last() else { return Vec::new() };
    let mut tail = input.to_vec();
    tail.resize(size.max(input.len()), *last);
    vec![input.repeat(size.div_ceil(input.len())), tail]
}

/// For JSON, also: each string longer, each list longer, more members in each object.
pub fn json(input: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut all = text(input, size);
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        let times = size.div_ceil(input.len());
        for part in [Part::Strings, Part::Lists, Part::Members] {
            let mut value = value.clone();
            enlarge(&mut value, part, times);
            all.push(value.to_string().into_bytes());
        }
    }
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Strings,
    Lists,
    Members,
}

fn enlarge(value: &mut Value, part: Part, times: usize) {
    match value {
        Value::String(text) if part == Part::Strings => *text = text.repeat(times),
        // What is in it is not enlarged as well: that would multiply with each level.
        Value::Array(items) if part == Part::Lists => {
            *items = std::iter::repeat_n(items.clone(), times).flatten().collect();
        }
        Value::Object(members) if part == Part::Members => {
            let more = members.clone();
            let names = (0..times).flat_map(|i| more.iter().map(move |one| (i, one)));
            members.extend(names.map(|(i, (name, value))| (format!("{name}{i}"), value.clone())));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| enlarge(item, part, times)),
        Value::Object(members) => members.values_mut().for_each(|member| enlarge(member, part, times)),
        _ => {}
    }
}

/// For TOML, also: each quoted value longer, and more profiles beside those that are there.
pub fn toml(input: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut all = text(input, size);
    let Ok(text) = std::str::from_utf8(input) else { return all };
    let longer: Vec<_> = text
        .split('"')
        .enumerate()
        .map(|(i, piece)| if i % 2 == 1 { piece.repeat(size.div_ceil(text.len())) } else { piece.to_owned() })
        .collect();
    let mut more = longer.join("\"").into_bytes();
    all.push(more.clone());
    let profiles = (0..).map(|i| format!("\n[profile.p{i}.provider.file]\npath = \"/p{i}\"\n"));
    let (short, long) = (input.len() + size, more.len() + size);
    let mut crowd = input.to_vec();
    for profile in profiles {
        if crowd.len() < short {
            crowd.extend(profile.bytes());
        }
        if more.len() >= long {
            break;
        }
        more.extend(profile.bytes());
    }
    all.extend([crowd, more]);
    all
}
