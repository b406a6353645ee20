//! The system's libpam, loaded while the program runs: a machine without it has no PAM, and
//! the program no dependency.
#![allow(unsafe_code, reason = "libpam is a C library")]

use std::{
    ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    ptr,
};

use nix::libc;

/// Its name, with the version of its interface.
const NAME: &str = "libpam.so.0";

const SUCCESS: c_int = 0;
const NEW_PASSWORD_REQUIRED: c_int = 12;
const CONVERSATION_ERROR: c_int = 19;
const TTY: c_int = 3;
const REMOTE_HOST: c_int = 4;
const ESTABLISH: c_int = 2;
const DELETE: c_int = 4;
const PROMPTS: [c_int; 2] = [1, 2];
/// More would be no conversation (PAM_MAX_NUM_MSG).
const MAX_MESSAGES: c_int = 32;

/// `pam_handle_t`, which only libpam looks into.
#[repr(C)]
struct Handle {
    _opaque: [u8; 0],
}

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Call = unsafe extern "C" fn(*mut Handle, c_int) -> c_int;

/// The functions that are used.
pub(super) struct Library {
    start: unsafe extern "C" fn(
        *const c_char,
        *const c_char,
        *const Conversation,
        *mut *mut Handle,
    ) -> c_int,
    end: Call,
    set_item: unsafe extern "C" fn(*mut Handle, c_int, *const c_void) -> c_int,
    check_account: Call,
    credentials: Call,
    open_session: Call,
    close_session: Call,
    environment: unsafe extern "C" fn(*mut Handle) -> *mut *mut c_char,
    describe: unsafe extern "C" fn(*mut Handle, c_int) -> *const c_char,
}

impl Library {
    /// Loads it, for as long as the process lasts.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: libpam's initialisers have no conditions, and each symbol has the type of
        // its declaration in security/pam_appl.h and security/pam_modules.h.
        unsafe {
            let library = libloading::Library::new(NAME).map_err(io::Error::other)?;
            macro_rules! symbol {
                ($name:literal) => {
                    *library.get($name).map_err(io::Error::other)?
                };
            }
            let all = Self {
                start: symbol!(b"pam_start\0"),
                end: symbol!(b"pam_end\0"),
                set_item: symbol!(b"pam_set_item\0"),
                check_account: symbol!(b"pam_acct_mgmt\0"),
                credentials: symbol!(b"pam_setcred\0"),
                open_session: symbol!(b"pam_open_session\0"),
                close_session: symbol!(b"pam_close_session\0"),
                environment: symbol!(b"pam_getenvlist\0"),
                describe: symbol!(b"pam_strerror\0"),
            };
            // Its functions are kept, so it must not be unloaded.
            let _forever: &'static libloading::Library = Box::leak(Box::new(library));
            Ok(all)
        }
    }
}

/// What is going on between `pam_start` and `pam_end`.
pub(super) struct Transaction {
    library: Library,
    handle: *mut Handle,
    /// What the last call gave.
    last: c_int,
    /// libpam has its address.
    _conversation: Box<Conversation>,
}

impl Transaction {
    /// Begins one about an account.
    pub(super) fn start(library: Library, service: &str, account: &str) -> io::Result<Self> {
        let (service, account) = (CString::new(service)?, CString::new(account)?);
        let conversation = Box::new(Conversation { converse, data: ptr::null_mut() });
        let mut handle = ptr::null_mut();
        // SAFETY: the texts are C strings, libpam copies them and the conversation, whose
        // function is for ever, and writes the handle.
        let last = unsafe {
            (library.start)(
                service.as_ptr(),
                account.as_ptr(),
                &raw const *conversation,
                &raw mut handle,
            )
        };
        if last != SUCCESS || handle.is_null() {
            return Err(io::Error::other("PAM could not be started"));
        }
        Ok(Self { library, handle, last, _conversation: conversation })
    }

    pub(super) fn set_terminal(&mut self, name: &str) -> io::Result<()> {
        self.set(TTY, name)
    }

    pub(super) fn set_host(&mut self, name: &str) -> io::Result<()> {
        self.set(REMOTE_HOST, name)
    }

    fn set(&mut self, item: c_int, value: &str) -> io::Result<()> {
        let value = CString::new(value)?;
        // SAFETY: the handle is one of a transaction that goes on, and the items that are
        // set are C strings, which libpam copies.
        let result = unsafe { (self.library.set_item)(self.handle, item, value.as_ptr().cast()) };
        self.checked(result)
    }

    /// Whether the account may be used now.
    pub(super) fn check_account(&mut self) -> io::Result<()> {
        let result = self.call(self.library.check_account, 0);
        if result == NEW_PASSWORD_REQUIRED {
            return Err(io::Error::other("the account needs a new password first"));
        }
        self.checked(result)
    }

    pub(super) fn establish(&mut self) -> io::Result<()> {
        let result = self.call(self.library.credentials, ESTABLISH);
        self.checked(result)
    }

    pub(super) fn open(&mut self) -> io::Result<()> {
        let result = self.call(self.library.open_session, 0);
        self.checked(result)
    }

    /// The variables for the session.
    pub(super) fn variables(&mut self) -> Vec<(OsString, OsString)> {
        let mut variables = Vec::new();
        // SAFETY: the result is null or an array that ends with null, of C strings that
        // are allocated by malloc and are the caller's to free, as is the array.
        unsafe {
            let list = (self.library.environment)(self.handle);
            let mut at = list;
            while !at.is_null() && !(*at).is_null() {
                let text = CStr::from_ptr(*at).to_bytes();
                let mut parts = text.splitn(2, |byte| *byte == b'=');
                if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    let owned = |bytes| OsStr::from_bytes(bytes).to_owned();
                    variables.push((owned(name), owned(value)));
                }
                libc::free((*at).cast());
                at = at.add(1);
            }
            libc::free(list.cast());
        }
        variables
    }

    /// Ends the session, and the transaction with it.
    pub(super) fn close(mut self) {
        self.last = self.call(self.library.close_session, 0);
        self.last = self.call(self.library.credentials, DELETE);
    }

    /// Leaves the session to a process that was forked: only memory is freed here, when
    /// another program takes this process over.
    pub(super) fn leave(self) {
        let _kept = std::mem::ManuallyDrop::new(self);
    }

    fn call(&self, function: Call, flags: c_int) -> c_int {
        // SAFETY: the handle is one of a transaction that goes on.
        unsafe { function(self.handle, flags) }
    }

    fn checked(&mut self, result: c_int) -> io::Result<()> {
        self.last = result;
        if result == SUCCESS {
            return Ok(());
        }
        // SAFETY: the result is null or a C string that stays.
        let text = unsafe {
            let text = (self.library.describe)(self.handle, result);
            if text.is_null() { c"PAM refuses" } else { CStr::from_ptr(text) }
        };
        Err(io::Error::other(text.to_string_lossy().into_owned()))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.call(self.library.end, self.last);
    }
}

/// Shows what modules have to say. Nobody can answer them.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    _: *mut c_void,
) -> c_int {
    let Ok(length) = usize::try_from(count) else { return CONVERSATION_ERROR };
    if !(1..=MAX_MESSAGES).contains(&count) || messages.is_null() || responses.is_null() {
        return CONVERSATION_ERROR;
    }
    for n in 0..length {
        // SAFETY: Linux-PAM gives an array of that many pointers to messages, each with a
        // C string or null.
        let (style, text) = unsafe {
            let message = &**messages.add(n);
            let text = (!message.text.is_null()).then(|| CStr::from_ptr(message.text));
            (message.style, text.map(CStr::to_string_lossy))
        };
        if PROMPTS.contains(&style) {
            return CONVERSATION_ERROR;
        }
        let _ = writeln!(io::stderr(), "{}", text.unwrap_or_default());
    }
    // SAFETY: the array is the caller's to free, by `free`; zeroes are answers of nothing.
    unsafe {
        *responses = libc::calloc(length, size_of::<Response>()).cast();
        if (*responses).is_null() { CONVERSATION_ERROR } else { SUCCESS }
    }
}
