//! Stop sequences over streamed text: shows what is safe, holds back what may be a stop.

/// Looks for stop sequences in a text that arrives in parts.
///
/// The sequence that is complete first wins, whatever the parts; of several that end at the same
/// byte the longest. Neither it nor what follows is ever emitted.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The end of the text so far that may be the start of a stop; never contains a whole one.
    held: String,
    is_stopped: bool,
}

/// What [`StopMatcher::push`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that no stop sequence can take back any more.
    pub emit: String,
    /// The stop sequence that ended the text, as an index into the list given to `new`.
    pub hit: Option<usize>,
}

impl StopMatcher {
    /// An empty sequence would stop everything at once and is ignored.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> StopMatcher {
        StopMatcher {
            stops: stops.into_iter().map(Into::into).collect(),
            held: String::new(),
            is_stopped: false,
        }
    }

    /// Takes the next part of the text. After a hit there is nothing more to emit.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.is_stopped {
            return Stopped::default();
        }
        self.held.push_str(text);
        if let Some((index, start)) = self.first_complete_stop() {
            self.is_stopped = true;
            self.held.truncate(start);
            return Stopped { emit: std::mem::take(&mut self.held), hit: Some(index) };
        }
        let keep_from = self.possible_start();
        let kept = self.held.split_off(keep_from);
        Stopped { emit: std::mem::replace(&mut self.held, kept), hit: None }
    }

    /// What was held back, when the text ends without a stop.
    pub fn finish(self) -> String {
        self.held
    }

    /// The index of the winning stop and where it starts in `held`.
    fn first_complete_stop(&self) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, stop) in self.stops.iter().enumerate() {
            let Some(start) = self.held.find(stop.as_str()).filter(|_| !stop.is_empty()) else {
                continue;
            };
            let candidate = (start + stop.len(), start, index);
            best = Some(best.map_or(candidate, |best| best.min(candidate)));
        }
        best.map(|(_end, start, index)| (index, start))
    }

    /// Where the longest end of `held` begins that some stop begins with.
    fn possible_start(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let earliest = (self.held.len() + 1).saturating_sub(longest);
        (earliest..self.held.len())
            .filter(|start| self.held.is_char_boundary(*start))
            .find(|start| {
                let end = &self.held[*start..];
                self.stops.iter().any(|stop| stop.starts_with(end))
            })
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte by byte over the whole text: the first position at which some stop has just ended.
    fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let ending = stops
                .iter()
                .enumerate()
                .filter(|(_, stop)| !stop.is_empty() && text[..end].ends_with(stop.as_str()))
                .max_by_key(|(index, stop)| (stop.len(), std::cmp::Reverse(*index)));
            if let Some((index, stop)) = ending {
                return (text[..end - stop.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    fn streamed(parts: &[String], stops: &[String]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.to_vec());
        let mut shown = String::new();
        for part in parts {
            let step = matcher.push(part);
            shown.push_str(&step.emit);
            if step.hit.is_some() {
                assert_eq!(matcher.push("more"), Stopped::default());
                return (shown, step.hit);
            }
        }
        shown.push_str(&matcher.finish());
        (shown, None)
    }

    proptest! {
        #[test]
        fn however_the_text_is_cut_the_answer_is_that_of_the_whole_text(
            parts in prop::collection::vec("[abé\n]{0,4}", 0..12),
            stops in prop::collection::vec("[abé\n]{0,4}", 0..4),
        ) {
            prop_assert_eq!(streamed(&parts, &stops), naive(&parts.concat(), &stops));
        }
    }

    #[test]
    fn only_what_may_become_a_stop_is_held_back() {
        let mut matcher = StopMatcher::new(["\nUser:"]);
        assert_eq!(matcher.push("Hello\nUse").emit, "Hello");
        assert_eq!(matcher.push("ful").emit, "\nUseful");
        let step = matcher.push(" things\nUser: what");
        assert_eq!(step.emit, " things");
        assert_eq!(step.hit, Some(0));
    }

    #[test]
    fn without_stops_nothing_is_held_back() {
        let mut matcher = StopMatcher::new(Vec::<String>::new());
        assert_eq!(matcher.push("text").emit, "text");
        assert_eq!(matcher.finish(), "");
    }
}
