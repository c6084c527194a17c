//! What an instruction does to memory, before it is stepped.
//!
//! Source: the Intel 64 manual, volume 2, by way of iced-x86.
//!
//! Scattered stores and gathered loads (AVX-512, AVX2) are not seen. Neither compilers nor the C library
//! use them on memory that processes share.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use iced_x86::{
    Decoder, DecoderOptions, Instruction as Decoded, InstructionInfoFactory, Mnemonic, OpAccess,
    Register, UsedMemory,
};
use nix::libc::user_regs_struct as Registers;

use super::Kind;

const LONGEST_INSTRUCTION_BYTES: usize = 15;

/// Of an instruction whose operand has no fixed size: `xsave` and its like.
const UNKNOWN_LEN_BYTES: usize = 64;

/// Instructions that were decoded, by address. For one layout of code.
pub(super) struct Code {
    known: HashMap<u64, Rc<Instruction>>,
    factory: InstructionInfoFactory,
}

impl Default for Code {
    fn default() -> Self {
        Self { known: HashMap::new(), factory: InstructionInfoFactory::new() }
    }
}

/// What the harness has to know of an instruction.
#[derive(Debug, Default)]
pub(super) struct Instruction {
    /// It is `syscall`.
    pub(super) is_system_call: bool,
    pub(super) operands: Vec<Operand>,
}

/// One that is in memory.
#[derive(Debug)]
pub(super) struct Operand {
    used: UsedMemory,
    pub(super) kind: Kind,
    pub(super) len_bytes: usize,
    /// Whether the access happens in any case: not if it has a mask or is repeated 0 times.
    pub(super) is_certain: bool,
}

impl Code {
    /// Forgets everything: the code may be another.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// The instruction at an address.
    pub(super) fn at(&mut self, address: u64, memory: &File) -> io::Result<Rc<Instruction>> {
        if let Some(instruction) = self.known.get(&address) {
            return Ok(Rc::clone(instruction));
        }
        let mut bytes = [0; LONGEST_INSTRUCTION_BYTES];
        let len = memory.read_at(&mut bytes, address)?;
        let instruction = Rc::new(self.decode(&bytes[..len], address));
        self.known.insert(address, Rc::clone(&instruction));
        Ok(instruction)
    }

    fn decode(&mut self, bytes: &[u8], address: u64) -> Instruction {
        let decoded = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
        let used = self.factory.info(&decoded).used_memory();
        Instruction {
            is_system_call: decoded.mnemonic() == Mnemonic::Syscall,
            operands: used.iter().filter_map(|used| Operand::of(used, &decoded)).collect(),
        }
    }
}

impl Operand {
    fn of(used: &UsedMemory, decoded: &Decoded) -> Option<Self> {
        let (kind, is_certain) = match used.access() {
            OpAccess::None | OpAccess::NoMemAccess => return None,
            OpAccess::Read => (Kind::Load, true),
            OpAccess::CondRead => (Kind::Load, false),
            OpAccess::Write => (Kind::Store, true),
            OpAccess::CondWrite => (Kind::Store, false),
            OpAccess::ReadWrite => (Kind::Update, true),
            OpAccess::ReadCondWrite => (Kind::Update, false),
        };
        // A repeated string instruction has no size as a whole, but one for each round.
        let sizes = [used.memory_size().size(), decoded.memory_size().size()];
        let len_bytes = sizes.into_iter().find(|&len| len > 0).unwrap_or(UNKNOWN_LEN_BYTES);
        Some(Self { used: *used, kind, len_bytes, is_certain })
    }

    /// Where it is. None: not to be known from the general registers.
    pub(super) fn address(&self, registers: &Registers) -> Option<u64> {
        self.used.virtual_address(0, |register, _, _| value(register, registers))
    }
}

fn value(register: Register, registers: &Registers) -> Option<u64> {
    let whole = match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::RIP => registers.rip,
        Register::FS => return Some(registers.fs_base),
        Register::GS => return Some(registers.gs_base),
        Register::CS | Register::DS | Register::ES | Register::SS => return Some(0),
        _ => return None,
    };
    match register.size() {
        8 => Some(whole),
        4 => Some(whole & 0xffff_ffff),
        2 => Some(whole & 0xffff),
        _ => Some(whole & 0xff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        let zero = Registers {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: 0,
            rip: 0,
            cs: 0,
            eflags: 0,
            rsp: 0,
            ss: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        };
        Registers { rax: 0x1000, rcx: 3, rdi: 0x7000, rsp: 0x9000, fs_base: 0x50_0000, ..zero }
    }

    /// Address, length, what it does, whether in any case.
    fn accesses(bytes: &[u8]) -> Vec<(u64, usize, Kind, bool)> {
        let instruction = Code::default().decode(bytes, 0x40_0000);
        let of = |operand: &Operand| {
            let address = operand.address(&registers()).expect("an address");
            (address, operand.len_bytes, operand.kind, operand.is_certain)
        };
        instruction.operands.iter().map(of).collect()
    }

    #[test]
    fn addresses_come_from_registers() {
        // mov [rax+rcx*4+8], edx
        assert_eq!(accesses(&[0x89, 0x54, 0x88, 0x08]), [(0x1014, 4, Kind::Store, true)]);
        // mov rdx, fs:[0x28]
        let fs = [0x64, 0x48, 0x8b, 0x14, 0x25, 0x28, 0, 0, 0];
        assert_eq!(accesses(&fs), [(0x50_0028, 8, Kind::Load, true)]);
        // mov eax, [rip+0x10]
        let relative = [0x8b, 0x05, 0x10, 0, 0, 0];
        assert_eq!(accesses(&relative), [(0x40_0016, 4, Kind::Load, true)]);
        // lea rdx, [rax+8]
        assert_eq!(accesses(&[0x48, 0x8d, 0x50, 0x08]), []);
        // push rax
        assert_eq!(accesses(&[0x50]), [(0x8ff8, 8, Kind::Store, true)]);
    }

    #[test]
    fn atomic_operations_are_updates() {
        // lock xadd [rax], edx
        assert_eq!(accesses(&[0xf0, 0x0f, 0xc1, 0x10]), [(0x1000, 4, Kind::Update, true)]);
        // lock cmpxchg [rdi], ecx
        let [(0x7000, 4, Kind::Update, _)] = accesses(&[0xf0, 0x0f, 0xb1, 0x0f])[..] else {
            panic!("a compare-and-exchange");
        };
        // xchg [rax], ecx
        assert_eq!(accesses(&[0x87, 0x08]), [(0x1000, 4, Kind::Update, true)]);
    }

    #[test]
    fn repeated_stores_are_seen_by_the_round() {
        // rep stosb
        assert_eq!(accesses(&[0xf3, 0xaa])[0], (0x7000, 1, Kind::Store, false));
    }

    #[test]
    fn a_system_call_is_told_from_the_rest() {
        assert!(Code::default().decode(&[0x0f, 0x05], 0).is_system_call);
        assert!(!Code::default().decode(&[0x90], 0).is_system_call);
        assert!(Code::default().decode(&[], 0).operands.is_empty());
    }
}
