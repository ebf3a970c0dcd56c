//! Whether a caller takes what an operation answers with (RFC 9110 section 12.5.1; INPUT-03).

use http::{HeaderMap, HeaderValue, header};

/// How closely a range of media types names one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    All,
    Type,
    Exact,
}

/// Whether one of the types is acceptable. Without `Accept`, or with an empty one, all are; what cannot be read in it accepts nothing.
pub(super) fn allows(headers: &HeaderMap, types: &[&str]) -> bool {
    let lines: Vec<&HeaderValue> = headers.get_all(header::ACCEPT).iter().collect();
    if lines.iter().all(|line| line.is_empty()) || types.is_empty() {
        return true;
    }
    let ranges: Vec<&str> =
        lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).collect();
    types.iter().any(|wanted| {
        // Without its parameters, such as the charset.
        let wanted = wanted.split(';').next().unwrap_or_default().trim();
        // The range that fits most closely decides, so that `*/*, text/html;q=0` refuses HTML.
        let closest = ranges.iter().filter_map(|range| fit(range, wanted)).max_by_key(|(fit, _)| *fit);
        closest.is_some_and(|(_, taken)| taken)
    })
}

/// How a range fits a type, if it does, and whether it takes it or, by a weight of 0, refuses it.
fn fit(range: &str, wanted: &str) -> Option<(Fit, bool)> {
    let mut parts = range.split(';').map(str::trim);
    let essence = parts.next()?;
    let fit = match essence.split_once('/')? {
        ("*", "*") => Fit::All,
        (kind, "*") if wanted.split_once('/').is_some_and(|(own, _)| own.eq_ignore_ascii_case(kind)) => Fit::Type,
        _ if essence.eq_ignore_ascii_case(wanted) => Fit::Exact,
        _ => return None,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let taken = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
    Some((fit, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_03_the_closest_range_decides() {
        let json = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in accept {
                headers.append(header::ACCEPT, line.parse().unwrap());
            }
            allows(&headers, &["application/json; charset=utf-8"])
        };
        for accept in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["Application/JSON; charset=utf-8"],
            &["text/html, application/*;q=0.1"],
            &["text/html", "application/json;q=0.5"],
            &["*/*;q=0, application/json"],
        ] {
            assert!(json(accept), "{accept:?}");
        }
        for accept in [
            &["text/html"][..],
            &["application/xml, text/*"],
            &["*/*, application/json;q=0"],
            &[","],
            &["json"],
            &["*/*;q=x"],
        ] {
            assert!(!json(accept), "{accept:?}");
        }
    }
}
