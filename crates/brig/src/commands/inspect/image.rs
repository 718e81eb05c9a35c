//! An image as JSON.

use brig_spec::reference::Reference;
use brig_store::Image;
use serde_json::{Value, json};

/// Describes an image that has these names.
pub fn describe(image: &Image, names: &[Reference]) -> Value {
    let config = serde_json::to_value(&image.config.config).unwrap_or_default();
    let layers: Vec<String> = image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    json!({
        "Id": image.id.to_string(),
        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": image.origins.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Digest": image.manifest.to_string(),
        "Created": image.created,
        "Author": image.config.author.clone().unwrap_or_default(),
        "Architecture": image.platform.architecture,
        "Variant": image.platform.variant,
        "Os": image.platform.os,
        "Size": image.size,
        "Config": config,
        "RootFS": { "Type": "layers", "Layers": layers },
        "GraphDriver": { "Name": "overlay", "Data": { "Layers": image.layers } },
        "History": serde_json::to_value(&image.config.history).unwrap_or_default(),
    })
}
