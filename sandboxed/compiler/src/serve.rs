//! The compiler's conversation with the node: the module in parts, one answer, the output in parts.

use std::convert::Infallible;

use in_process::Engine;
use in_process::compile::{CompileError, CompiledParts, compile_module};
use sandbox_os::lockdown::Exit;
use sandbox_os::{Socket, SocketError};
use sandbox_protocol::{
    Assembly, Binding, Bytes, Compiled, FromCompiler, OUTPUT_BYTES_PER_REPLY, PACKET_BYTES, ToCompiler,
    decode, encode, packets,
};

const _: () = assert!(PACKET_BYTES <= sandbox_os::PACKET_BYTES_MAX);

/// Serves until the node closes the socket or something is wrong; says which.
pub(crate) fn run(socket: &Socket, engine: &Engine) -> Exit {
    let node =
        Node { socket, packet: vec![0; PACKET_BYTES], frame: Vec::new(), request: Assembly::default() };
    match node.serve(engine) {
        Ok(never) => match never {},
        Err(exit) => exit,
    }
}

/// The compiler's end of the socket, with room for a packet and a frame each way.
struct Node<'a> {
    socket: &'a Socket,
    packet: Vec<u8>,
    frame: Vec<u8>,
    request: Assembly,
}

impl Node<'_> {
    fn serve(mut self, engine: &Engine) -> Result<Infallible, Exit> {
        let binding = self.receive()?;
        let ToCompiler::Begin = self.message()? else { return Err(Exit::Request) };
        self.reply(binding, &FromCompiler::Ready)?;

        let mut module = Vec::new();
        let (binding, limits) = loop {
            let binding = self.receive()?;
            match self.message()? {
                ToCompiler::Part(part) => module.extend_from_slice(part.0),
                ToCompiler::Compile(limits) => break (binding, (*limits).into()),
                ToCompiler::Begin | ToCompiler::Output => return Err(Exit::Request),
            }
            self.reply(binding, &FromCompiler::Taken)?;
        };
        let CompiledParts { interface, native } = match compile_module(engine, &limits, &module) {
            Ok(parts) => parts,
            Err(CompileError::Invalid(refused)) => {
                return self.last(binding, &FromCompiler::Refused(&refused.0));
            }
            Err(CompileError::Engine(text)) => return self.last(binding, &FromCompiler::Failed(&text)),
        };
        drop(module);
        self.reply(binding, &FromCompiler::Compiled(Box::new(Compiled::new(&interface, native.len()))))?;

        let mut output = native;
        for segment in &interface.data {
            output.extend_from_slice(&segment.bytes);
        }
        for part in output.chunks(OUTPUT_BYTES_PER_REPLY) {
            let binding = self.receive()?;
            let ToCompiler::Output = self.message()? else { return Err(Exit::Request) };
            self.reply(binding, &FromCompiler::Output(Bytes(part)))?;
        }
        // The node hangs up.
        self.receive()?;
        Err(Exit::Request)
    }

    fn message(&self) -> Result<ToCompiler<'_>, Exit> {
        decode(self.request.body()).map_err(|_| Exit::Request)
    }

    fn receive(&mut self) -> Result<Binding, Exit> {
        self.request.restart();
        loop {
            let bytes = self.socket.receive_blocking(&mut self.packet).map_err(exit)?;
            let packet = self.packet.get(..bytes).ok_or(Exit::Request)?;
            if let Some(binding) = self.request.push(packet).map_err(|_| Exit::Request)? {
                return Ok(binding);
            }
        }
    }

    fn reply(&mut self, binding: Binding, message: &FromCompiler<'_>) -> Result<(), Exit> {
        encode(binding, message, &mut self.frame).map_err(|_| Exit::Request)?;
        packets(&self.frame).try_for_each(|packet| self.socket.send_blocking(packet).map_err(exit))
    }

    /// Answers, and waits for the node to hang up.
    fn last<T>(&mut self, binding: Binding, message: &FromCompiler<'_>) -> Result<T, Exit> {
        self.reply(binding, message)?;
        self.receive()?;
        Err(Exit::Request)
    }
}

fn exit(error: SocketError) -> Exit {
    match error {
        SocketError::Closed => Exit::Done,
        SocketError::Deadline(_) | SocketError::TooLong(_) | SocketError::Os(_) => Exit::Request,
    }
}
