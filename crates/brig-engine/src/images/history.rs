//! `history`: how an image came to be, step by step.

use brig_spec::image::History;

use super::{Images, failure};
use crate::error::Result;

/// One step of an image's history, the newest first.
#[derive(Debug, Clone)]
pub struct Step {
    /// The image's id, for the last step; what earlier steps made has no id here.
    pub id: Option<String>,
    /// What the image says of it.
    pub step: History,
    /// What it added, unpacked, in bytes.
    pub size: u64,
}

impl Images<'_> {
    /// Tells the history of an image, the newest step first; a layer without a step gets one that says nothing.
    pub fn history(&self, name_or_id: &str) -> Result<Vec<Step>> {
        let fail = |error| failure::store(format!("cannot tell the history of image `{name_or_id}`"), error);
        let image = self.store.image(name_or_id).map_err(fail)?;
        let mut sizes = self.store.layer_sizes(&image.id).map_err(fail)?.into_iter();
        let mut steps = Vec::new();
        for step in &image.config.history {
            let size = if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
            steps.push(Step { id: None, step: step.clone(), size });
        }
        for size in sizes {
            steps.push(Step { id: None, step: History::default(), size });
        }
        steps.reverse();
        if let Some(first) = steps.first_mut() {
            first.id = Some(image.id.to_string());
        }
        Ok(steps)
    }
}
