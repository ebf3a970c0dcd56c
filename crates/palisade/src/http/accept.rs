//! Content negotiation: whether `Accept` allows a response of the operation (RFC 9110 section
//! 12.5.1).
//!
//! [`strictness`](super::strictness) calls it before the operation runs, so that a change whose
//! response the caller would discard is not made. Home of INPUT-03 (406).

use http::{HeaderMap, HeaderValue, header};

/// How specifically a media range matches a media type, least specific first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Any,
    Type,
    Exact,
}

/// Whether one of the media types is acceptable.
///
/// Without `Accept`, or with an empty one, all are, and for a caller that accepts problems. A range
/// that cannot be parsed accepts nothing.
pub(crate) fn is_acceptable(headers: &HeaderMap, types: &[&str]) -> bool {
    let lines: Vec<&HeaderValue> = headers.get_all(header::ACCEPT).iter().collect();
    if lines.iter().all(|line| line.is_empty()) || types.is_empty() {
        return true;
    }
    let ranges: Vec<&str> =
        lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).collect();
    // Generated clients may name problems only: the first JSON type of all that the document lists.
    if ranges.iter().any(|range| match_range(range, "application/problem+json") == Some((Specificity::Exact, true))) {
        return true;
    }
    types.iter().any(|media_type| {
        // Without its parameters, such as the charset.
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        // The most specific range decides, so that `*/*, text/html;q=0` rejects HTML.
        let matches = ranges.iter().filter_map(|range| match_range(range, media_type));
        matches.max_by_key(|(specificity, _)| *specificity).is_some_and(|(_, is_accepted)| is_accepted)
    })
}

/// How a range matches a media type, and whether it accepts it: a weight of 0 rejects. `None`: no
/// match.
fn match_range(range: &str, media_type: &str) -> Option<(Specificity, bool)> {
    let mut parts = range.split(';').map(str::trim);
    let essence = parts.next()?;
    let top_level = media_type.split_once('/').map_or(media_type, |(top_level, _)| top_level);
    let specificity = match essence.split_once('/')? {
        ("*", "*") => Specificity::Any,
        (range, "*") if range.eq_ignore_ascii_case(top_level) => Specificity::Type,
        _ if essence.eq_ignore_ascii_case(media_type) => Specificity::Exact,
        _ => return None,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let is_accepted = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
    Some((specificity, is_accepted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_03_most_specific_media_range_decides() {
        let accepts_json = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in accept {
                headers.append(header::ACCEPT, line.parse().unwrap());
            }
            is_acceptable(&headers, &["application/json; charset=utf-8"])
        };
        for accept in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["Application/JSON; charset=utf-8"],
            &["text/html, application/*;q=0.1"],
            &["text/html", "application/json;q=0.5"],
            &["*/*;q=0, application/json"],
            &["application/problem+json"],
        ] {
            assert!(accepts_json(accept), "{accept:?}");
        }
        for accept in [
            &["text/html"][..],
            &["application/xml, text/*"],
            &["*/*, application/json;q=0"],
            &[","],
            &["json"],
            &["*/*;q=x"],
            &["application/problem+json;q=0"],
        ] {
            assert!(!accepts_json(accept), "{accept:?}");
        }
    }
}
