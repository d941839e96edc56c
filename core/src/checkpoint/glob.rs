//! Globs over tensor names, as Python's `fnmatch` reads them: `*` any run (dots included), `?` one character, `[a-z]`
//! and `[!a-z]` one of a set; a `[` that nothing closes is itself.

/// Between the names of tensors that share their memory and so are stored as one (tied weights, views of one buffer).
const TOGETHER: &str = " | ";

/// Whether one of the names that a stored tensor goes by matches.
pub fn matches_any(pattern: &str, names: &str) -> bool {
    let is_meant = |name: &str| matches(pattern, name) || matches(pattern, without_number(name));
    is_meant(names) || names.split(TOGETHER).any(is_meant)
}

/// Tensors whose names would be equal are numbered when they are stored: `w`, `w~2`, `w~3`.
fn without_number(name: &str) -> &str {
    let numbered = name.rsplit_once('~').filter(|(_, number)| number.chars().all(|c| c.is_ascii_digit()));
    numbered.map_or(name, |(plain, _)| plain)
}

/// Whether all of `name` matches.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and what it has swallowed up to.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = one(&pattern[p..], name[n]) {
            p += length;
            n += 1;
        } else if let Some((at, swallowed)) = star {
            star = Some((at, swallowed + 1));
            (p, n) = (at + 1, swallowed + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How long the pattern of one character at the start of `pattern` is, if it matches `c`.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match set(pattern) {
            Some(set) => contains(&pattern[1..set - 1], c).then_some(set),
            None => (c == '[').then_some(1),
        },
        other => (*other == c).then_some(1),
    }
}

/// Length of the set at the start of `pattern`, brackets included; a `]` right behind the opening belongs to it.
fn set(pattern: &[char]) -> Option<usize> {
    let first = if pattern.get(1) == Some(&'!') { 3 } else { 2 };
    (first..pattern.len()).find(|&at| pattern[at] == ']').map(|at| at + 1)
}

fn contains(set: &[char], c: char) -> bool {
    let (negated, set) = match set.split_first() {
        Some(('!', rest)) => (true, rest),
        _ => (false, set),
    };
    let (mut at, mut found) = (0, false);
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            found |= (set[at]..=set[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= set[at] == c;
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::{matches, matches_any};

    #[test]
    fn tensor_that_is_stored_with_others_is_found_by_each_of_their_names() {
        let tied = "model.embed.weight | model.head.weight";
        assert!(matches_any("model.head.*", tied) && matches_any("model.embed.weight", tied));
        assert!(!matches_any("head.*", tied) && !matches_any("model.head", tied));
    }

    #[test]
    fn globs_match_as_fnmatch_does() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("model.*", "model.layers.0.weight", true),
            ("model.*.weight", "model.layers.0.weight", true),
            ("model.*.weight", "model.layers.0.bias", false),
            ("*.exp_avg*", "optimizer.state.0.exp_avg_sq", true),
            ("layer[0-3].?", "layer2.w", true),
            ("layer[0-3].?", "layer4.w", false),
            ("layer[!0-3]", "layer4", true),
            ("layer[!0-3]", "layer3", false),
            ("a[]]b", "a]b", true),
            ("a[b", "a[b", true),
            ("*a*b*c", "xxaxxbxxcxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("größe?", "größe1", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
