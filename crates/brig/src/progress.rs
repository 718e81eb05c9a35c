//! What a pull or a push shows: a bar a layer on a terminal, plain lines off it, nothing when quiet.

use brig_spec::digest::Digest;
use brig_store::{Observer, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Bars.
    Bars,
    /// Lines.
    Lines,
    /// Nothing.
    Nothing,
}

/// The words for one direction.
#[derive(Debug, Clone, Copy)]
struct Words {
    moving: &'static str,
    to_move: &'static str,
    done: &'static str,
}

const FETCHING: Words = Words { moving: "downloading", to_move: "to fetch", done: "unpacked" };
const SENDING: Words = Words { moving: "sending", to_move: "to send", done: "sent" };

/// Shows the progress of a pull or a push on standard error.
#[derive(Debug)]
pub struct Reporter {
    show: Show,
    words: Words,
    bars: MultiProgress,
    layers: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Reporter {
    /// Makes a reporter: bars when standard error is a terminal.
    pub fn new(quiet: bool) -> Self {
        let show = match (quiet, crate::terminal::stderr_is_terminal()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Bars,
            (false, false) => Show::Lines,
        };
        Self { show, words: FETCHING, bars: MultiProgress::new(), layers: Mutex::default() }
    }

    /// Makes a reporter for what goes out.
    pub fn sending(quiet: bool) -> Self {
        Self { words: SENDING, ..Self::new(quiet) }
    }

    fn line(text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    fn bar(&self, digest: &Digest, total: u64) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bar = layers.entry(digest.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "{prefix} {msg:12} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec}",
            );
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
            self.bars.add(ProgressBar::new(total).with_style(style).with_prefix(digest.short().to_owned()))
        });
        bar.set_length(total);
        bar.clone()
    }

    fn bars(&self, event: &Progress) {
        match event {
            Progress::Layer { digest, size, present } => {
                let bar = self.bar(digest, *size);
                if *present { bar.finish_with_message("present") } else { bar.set_message("waiting") }
            }
            Progress::Waiting { digest } => self.bar(digest, 0).set_message("waiting"),
            Progress::Downloading { digest, done, total } => {
                let bar = self.bar(digest, *total);
                bar.set_message(self.words.moving);
                bar.set_position(*done);
            }
            Progress::Unpacked { digest, .. } => {
                let layers = self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(bar) = layers.get(digest) {
                    bar.finish_with_message(self.words.done);
                }
            }
            Progress::Flushing | Progress::Step(_) => {}
        }
    }

    fn lines(&self, event: &Progress) {
        match event {
            Progress::Layer { digest, present: true, .. } => Self::line(&format!("{}: present", digest.short())),
            Progress::Layer { digest, size, .. } => {
                let size = crate::output::decimal_size(*size);
                Self::line(&format!("{}: {size} {}", digest.short(), self.words.to_move));
            }
            Progress::Waiting { digest } => {
                Self::line(&format!("{}: another brig fetches it; waiting", digest.short()));
            }
            Progress::Unpacked { digest, size } => {
                let size = crate::output::decimal_size(*size);
                Self::line(&format!("{}: {}, {size}", digest.short(), self.words.done));
            }
            Progress::Downloading { .. } | Progress::Flushing | Progress::Step(_) => {}
        }
    }
}

impl Observer for Reporter {
    fn progress(&self, event: Progress) {
        match self.show {
            Show::Bars => self.bars(&event),
            Show::Lines => self.lines(&event),
            Show::Nothing => {}
        }
    }
}
