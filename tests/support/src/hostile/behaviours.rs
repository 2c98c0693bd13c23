//! Which ways to misbehave there are. The fixture knows them by their names.

use rustix::process::Signal;

use super::{Behaviour, Effect, Strikes};

macro_rules! behaviours {
    ($($(#[$meta:meta])* $constant:ident = $name:literal, $strikes:ident, $effect:expr;)+) => {
        impl Behaviour {
            $($(#[$meta])* pub const $constant: Self =
                Self { name: $name, strikes: Strikes::$strikes, effect: $effect };)+

            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$constant),+];
        }
    };
}

use Effect::{Breach, Exit, FillsStderr, FillsStdout, Fine, Hangs, Refused};

const SEGV: Effect = Effect::Signal(Signal::SEGV);
const ABORT: Effect = Effect::Signal(Signal::ABORT);
const BUS: Effect = Effect::Signal(Signal::BUS);
const KILL: Effect = Effect::Signal(Signal::KILL);

behaviours! {
    /// Answers each prompt, `You said: ..`, and does nothing wrong.
    WELL = "well", Never, Fine;
    /// As that one, and cannot do without a setting `key`.
    STRICT_SETTINGS = "strict-settings", Never, Fine;

    /// Its file says that it speaks ABI 0.
    OLDER_ABI = "older-abi", File, Refused("speaks ABI 0 (antiphon-plugin-api 0.0.1), this host speaks ABI 1");
    /// Its file says that it speaks ABI 99.
    NEWER_ABI = "newer-abi", File, Refused("speaks ABI 99 (antiphon-plugin-api 9.0.0), this host speaks ABI 1");

    /// Panics in an initialiser, which cannot unwind.
    PANIC_LOAD = "panic-load", Load, ABORT;
    /// Writes to an address that is not mapped, in an initialiser.
    SEGV_LOAD = "segv-load", Load, SEGV;
    /// Aborts in an initialiser.
    ABORT_LOAD = "abort-load", Load, ABORT;
    /// Ends the process with success, in an initialiser: an exit code of 0 proves nothing.
    EXIT_LOAD = "exit-load", Load, Exit(0);
    /// Never comes back from an initialiser; says `hostile: hangs ..` on stdout first, as everything that hangs.
    HANG_LOAD = "hang-load", Load, Hangs;
    /// Writes to stdout without end, in an initialiser.
    STDOUT_LOAD = "stdout-load", Load, FillsStdout;
    /// Its entry is of another abi_stable.
    OTHER_ABI_STABLE = "other-abi-stable", Load, Refused("does not fit this host");
    /// Its root has a field of another name.
    OTHER_ROOT = "other-root", Load, Refused("does not fit this host");

    /// Panics in `manifest()`, which cannot unwind.
    PANIC_MANIFEST = "panic-manifest", Manifest, ABORT;
    /// Writes to an address that is not mapped, in `manifest()`.
    SEGV_MANIFEST = "segv-manifest", Manifest, SEGV;
    /// Never comes back from `manifest()`.
    HANG_MANIFEST = "hang-manifest", Manifest, Hangs;
    /// A manifest of bytes that are no text.
    GARBAGE_MANIFEST = "garbage-manifest", Manifest, Refused("a manifest that cannot be read");
    /// The first half of a manifest.
    BROKEN_MANIFEST = "broken-manifest", Manifest, Refused("a manifest that cannot be read");
    /// A proper manifest of 100 MiB, nearly all of it description.
    HUGE_MANIFEST = "huge-manifest", Manifest, Breach;
    /// The file says version 1.0.0, the manifest 2.0.0.
    LYING_VERSION = "lying-version", Manifest, Breach;
    /// The manifest has the name `somebody-else`.
    LYING_NAME = "lying-name", Manifest, Breach;
    /// The file says `llm tts`, the manifest `llm`.
    LYING_KINDS = "lying-kinds", Manifest, Breach;
    /// The file says ABI 1, the manifest 7.
    LYING_ABI = "lying-abi", Manifest, Breach;
    /// Its settings have a schema that is none.
    NO_SCHEMA = "no-schema", Manifest, Breach;
    /// An event extends an event that nobody has, one without a name, and itself.
    NONSENSE_BASE = "nonsense-base", Manifest, Breach;
    /// Declares one event twice.
    TWIN_EVENTS = "twin-events", Manifest, Breach;
    /// Declares 302 events; the ABI has bits for 256.
    MANY_EVENTS = "many-events", Manifest, Breach;
    /// Says things of later plugin-apis: fields, a version 2 of `llm` beside 1, a capability `telepathy`, an event with a
    /// schema. All of it has to be passed over.
    NEWER_MANIFEST = "newer-manifest", Manifest, Fine;
    /// Declares an event without a schema, as those of the core are, of a core that this host does not have.
    NEWER_EVENT = "newer-event", Manifest, Breach;
    /// Declares version 2 of `llm` and has no other.
    NEWER_CAPABILITY = "newer-capability", Manifest, Breach;

    /// Panics in `create`, which cannot unwind.
    PANIC_CREATE = "panic-create", Create, ABORT;
    /// Writes to an address that is not mapped, in `create`.
    SEGV_CREATE = "segv-create", Create, SEGV;
    /// Aborts in `create`.
    ABORT_CREATE = "abort-create", Create, ABORT;
    /// Ends the process with code 3, in `create`.
    EXIT_CREATE = "exit-create", Create, Exit(3);
    /// Reads a mapped file behind its end, in `create`.
    BUS_CREATE = "bus-create", Create, BUS;
    /// Recurses until the stack ends, in `create`. Rust makes an abort of it on threads that it knows.
    OVERFLOW_CREATE = "overflow-create", Create, ABORT;
    /// Wants all memory that there could be, in `create`; Rust aborts.
    OOM_CREATE = "oom-create", Create, ABORT;
    /// Never comes back from `create`.
    HANG_CREATE = "hang-create", Create, Hangs;
    /// Writes to stderr without end, in `create`.
    STDERR_CREATE = "stderr-create", Create, FillsStderr;
    /// Says that it cannot start, as is proper.
    FAIL_CREATE = "fail-create", Create, Refused("failed while starting, as asked");
    /// Declares `llm` and has no object for it.
    MISSING_CAPABILITY = "missing-capability", Create, Refused("no object for llm");
    /// Gives the object of a voice when asked for `llm`.
    OTHER_CAPABILITY = "other-capability", Create, Refused("llm object has another layout");

    /// Never answers a `ping`; everything else works.
    DEAF_PING = "deaf-ping", Ping, Hangs;

    /// Writes to an address that is not mapped.
    SEGV_CALL = "segv-call", Call, SEGV;
    /// Aborts.
    ABORT_CALL = "abort-call", Call, ABORT;
    /// Panics on the host's thread. abi_stable lets no panic out of an object's method, and exits with code 1.
    PANIC_CALL = "panic-call", Call, Exit(1);
    /// Ends the process with code 4.
    EXIT_CALL = "exit-call", Call, Exit(4);
    /// Sends SIGKILL to its own process.
    KILL_CALL = "kill-call", Call, KILL;
    /// Accepts the command and never finishes it, cancelled or not. Other commands go on, and so does closing.
    HANG_CALL = "hang-call", Call, Hangs;
    /// Does not return from the ABI's function.
    BLOCK_CALL = "block-call", Call, Hangs;
    /// Panics in a thread of its own; the command is never finished.
    THREAD_PANIC_CALL = "thread-panic-call", Call, Hangs;
    /// Forgets 1 MiB with each call, and answers.
    LEAK_CALL = "leak-call", Call, Breach;
    /// Emits as fast as it can, whatever the sink answers, until it is cancelled or closed.
    FLOOD_CALL = "flood-call", Call, Breach;
    /// Emits an event by an index that its manifest does not have, and answers.
    UNDECLARED_EVENT = "undeclared-event", Call, Breach;
    /// Emits payloads that are no MessagePack, and answers.
    MALFORMED_EVENT = "malformed-event", Call, Breach;
    /// Emits payloads that do not fit their types, one of the core and one by a schema, and answers.
    MISFIT_EVENT = "misfit-event", Call, Breach;
    /// Answers, and finishes the command twice.
    FINISH_TWICE = "finish-twice", Call, Breach;
    /// Finishes a command that nobody gave, and answers.
    FINISH_FOREIGN = "finish-foreign", Call, Breach;
    /// Answers, finishes, and goes on talking.
    LATE_EVENT = "late-event", Call, Breach;

    /// Writes to an address that is not mapped.
    SEGV_CLOSE = "segv-close", Close, SEGV;
    /// Does not return from `close`.
    BLOCK_CLOSE = "block-close", Close, Hangs;
    /// Never finishes the token of `close`.
    HANG_CLOSE = "hang-close", Close, Hangs;
    /// Emits one event after it has finished the token of `close`.
    LATE_CLOSE = "late-close", AfterClose, Breach;
    /// Keeps a thread that goes on emitting, about a thousand times a second, until the process ends.
    OUTLIVE_CLOSE = "outlive-close", AfterClose, Breach;

    /// Never says that it has stopped.
    HANG_STOP = "hang-stop", Stop, Hangs;
}
