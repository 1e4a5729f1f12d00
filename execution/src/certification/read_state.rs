//! Who may read what of the certified state (`canister-execution.md` section 6).

use crate::certification::{Certificate, Selection};
use crate::query::QueryView;
use crate::state::MessageId;
use crate::{Principal, text};

/// Paths that one request may ask for (Interface Specification, request `read_state`).
pub const PATHS_MAX: usize = 1000;
/// Labels that one path may have.
pub const LABELS_MAX: usize = 127;

/// Why a request to read the state is refused. An HTTP interface answers the first three with 400, the last
/// with 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadStateError {
    /// Too many paths.
    #[error("{paths} paths, the limit is {PATHS_MAX}")]
    TooManyPaths {
        /// How many.
        paths: usize,
    },
    /// A path is too long.
    #[error("a path of {labels} labels, the limit is {LABELS_MAX}")]
    PathTooLong {
        /// How many.
        labels: usize,
    },
    /// Paths of different messages.
    #[error("paths of more than one request id; ask for each alone")]
    ManyRequests,
    /// Not for this sender, or for nobody.
    #[error("path {path} can't be read: {why}")]
    Forbidden {
        /// The path.
        path: String,
        /// Whose it is.
        why: &'static str,
    },
}

impl QueryView {
    /// What `sender` may see at `paths` of the state after the last round, sent by way of `effective_canister`.
    /// A path that leads nowhere gets the proof that it does.
    ///
    /// Readable are `/time`; of the effective canister `controllers`, `module_hash`, the two timestamps and
    /// `metadata/<name>`, private ones by controllers only; and `/request_status/<id>` with what is below it, by
    /// who sent the message. `certified_data` is shown to queries alone.
    ///
    /// # Errors
    /// Nothing is shown when one of the paths is not to be.
    pub fn read_state(
        &self,
        sender: Principal,
        effective_canister: Principal,
        paths: &[Vec<Vec<u8>>],
    ) -> Result<Certificate, ReadStateError> {
        if paths.len() > PATHS_MAX {
            return Err(ReadStateError::TooManyPaths { paths: paths.len() });
        }
        let reader = Reader { view: self, sender, effective_canister };
        let mut request = None;
        let mut shown = Vec::with_capacity(paths.len());
        for path in paths {
            if path.len() > LABELS_MAX {
                return Err(ReadStateError::PathTooLong { labels: path.len() });
            }
            let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
            reader
                .may_read(&path)
                .map_err(|why| ReadStateError::Forbidden { path: text::path(&path), why })?;
            if let [b"request_status", id, ..] = &path[..]
                && *request.get_or_insert(*id) != *id
            {
                return Err(ReadStateError::ManyRequests);
            }
            shown.push(path);
        }
        let shown = shown.iter().map(Vec::as_slice);
        Ok(self.certified.certificate(&Selection::of(shown)))
    }
}

struct Reader<'a> {
    view: &'a QueryView,
    sender: Principal,
    effective_canister: Principal,
}

impl Reader<'_> {
    fn may_read(&self, path: &[&[u8]]) -> Result<(), &'static str> {
        match path {
            [b"time"] => Ok(()),
            [b"canister", id, ..] if *id != self.effective_canister.as_slice() => {
                Err("it is not of the effective canister")
            }
            [
                b"canister",
                _,
                b"controllers" | b"module_hash" | b"canister_creation_timestamp" | b"last_install_timestamp",
            ] => Ok(()),
            [b"canister", _, b"certified_data"] => Err("only queries of the canister see it"),
            [b"canister", _, b"metadata", name] => self.may_read_metadata(name),
            [b"request_status", id] => self.may_read_request(id),
            [
                b"request_status",
                id,
                b"status" | b"reply" | b"reject_code" | b"reject_message" | b"error_code",
            ] => self.may_read_request(id),
            _ => Err("there is no such thing to read"),
        }
    }

    fn may_read_metadata(&self, name: &[u8]) -> Result<(), &'static str> {
        let name = std::str::from_utf8(name).map_err(|_| "a metadata name is UTF-8")?;
        let Some(canister) = self.view.canisters.get(&self.effective_canister) else { return Ok(()) };
        let section = canister.module().and_then(|module| module.interface.custom_sections.get(name));
        if section.is_some_and(|section| !section.public) && !canister.is_controlled_by(&self.sender) {
            return Err("a private section is its controllers'");
        }
        Ok(())
    }

    fn may_read_request(&self, id: &[u8]) -> Result<(), &'static str> {
        let id: [u8; 32] = id.try_into().map_err(|_| "a request id has 32 bytes")?;
        // That there is none, everybody may know.
        let Some(record) = self.view.certified.request(&MessageId(id)) else { return Ok(()) };
        if record.sender != self.sender {
            return Err("it is another sender's");
        }
        // Which canister a management call is about is in its argument.
        let by_way_of = [self.effective_canister, Principal::management_canister()];
        if !by_way_of.contains(&record.receiver) {
            return Err("it is not of the effective canister");
        }
        Ok(())
    }
}
