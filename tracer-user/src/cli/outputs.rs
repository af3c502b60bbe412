//! The files that a run writes: opened before it begins, so that a path that cannot be written is found at once.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::report::{
    Report, flamegraph,
    folded::{self, Weight},
    json,
};

/// A form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Flamegraph,
    Folded,
    Json,
}

/// A file to write and whether the run made it.
#[derive(Debug)]
struct Output {
    form: Form,
    path: PathBuf,
    file: File,
    made: bool,
}

/// The files to write.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    files: Vec<Output>,
}

impl Outputs {
    /// Opens the files. What is in them stays until there is a report.
    pub(super) fn open(
        flamegraph: Option<&Path>,
        folded: Option<&Path>,
        json: Option<&Path>,
    ) -> Result<Self> {
        let mut outputs = Self::default();
        for (form, path) in [
            (Form::Flamegraph, flamegraph),
            (Form::Folded, folded),
            (Form::Json, json),
        ] {
            let Some(path) = path else { continue };
            let made = !path.exists();
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            outputs.files.push(Output {
                form,
                path: path.to_owned(),
                file,
                made,
            });
        }
        Ok(outputs)
    }

    /// Writes all files, even if one fails, and returns what became of each.
    pub(super) fn write(mut self, report: &Report) -> Vec<Result<PathBuf>> {
        self.files
            .drain(..)
            .map(|output| {
                let Output {
                    form,
                    path,
                    file,
                    made: _,
                } = output;
                write(form, file, report)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(path)
            })
            .collect()
    }
}

fn write(form: Form, file: File, report: &Report) -> Result<()> {
    // Devices and pipes cannot be cut, and need not be.
    let _uncut = file.set_len(0);
    let mut out = BufWriter::new(file);
    match form {
        Form::Flamegraph => flamegraph::write(report, Weight::Live, &mut out)?,
        Form::Folded => folded::write(report, Weight::Live, &mut out)?,
        Form::Json => json::write(report, &mut out)?,
    }
    out.flush()?;
    Ok(())
}

impl Drop for Outputs {
    /// A run that failed leaves no empty files behind.
    fn drop(&mut self) {
        for output in &self.files {
            if output.made {
                let _gone = std::fs::remove_file(&output.path);
            }
        }
    }
}
