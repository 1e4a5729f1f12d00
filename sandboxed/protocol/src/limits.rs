//! Limits and prices on the wire.

use serde::{Deserialize, Serialize};

/// A wire type with the fields of a domain type, and both conversions. Both destructure, so that a field that
/// is new in one breaks the build of the other.
macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident of $domain:path { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the fields are those of the domain type of the same name")]
        pub struct $name { $(pub $field: $type,)* }

        impl From<&$domain> for $name {
            fn from(domain: &$domain) -> Self {
                let $domain { $($field),* } = domain.clone();
                Self { $($field: $field.into()),* }
            }
        }

        impl From<$name> for $domain {
            fn from(wire: $name) -> Self {
                let $name { $($field),* } = wire;
                Self { $($field: $field.into()),* }
            }
        }
    };
}

mirror! {
    /// See [`execution::Limits`].
    Limits of execution::Limits {
        system_subnet: bool,
        update_instructions: u64,
        query_instructions: u64,
        inspect_instructions: u64,
        install_instructions: u64,
        slice_instructions: u64,
        paused_messages: usize,
        cleanup_percent: u64,
        upload_chunk_instructions: u64,
        snapshot_instructions: u64,
        install_rate: Option<u64>,
        heap_delta_rate: Option<u64>,
        round_instructions: u64,
        heap32_bytes: u64,
        heap64_bytes: u64,
        stable_bytes: u64,
        subnet_memory_bytes: u64,
        subnet_compute_percent: u64,
        payload_bytes: u64,
        call_payload_bytes: u64,
        query_reply_bytes: u64,
        method_name_bytes: u64,
        queue_length: usize,
        ingress_queue_length: usize,
        ingress_waiting_bytes: u64,
        ingress_history_length: usize,
        ingress_answer_bytes: u64,
        callbacks_shared: usize,
        message_memory_bytes: u64,
        pending_management_calls: usize,
        calls_per_message: usize,
        calls_bytes: u64,
        stable_access_pages: [u64; 3],
        nodes: u32,
        prices: Prices,
    }
}

mirror! {
    /// See [`execution::Prices`].
    Prices of execution::Prices {
        message: u128,
        instruction: u128,
        ingress: u128,
        ingress_byte: u128,
        call: u128,
        call_byte: u128,
        storage_gib_second: u128,
        compute_percent_second: u128,
        create: u128,
    }
}

impl From<execution::Prices> for Prices {
    fn from(domain: execution::Prices) -> Self {
        Self::from(&domain)
    }
}
