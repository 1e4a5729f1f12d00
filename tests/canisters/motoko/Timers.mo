// Recurring and one-shot timers, and a heartbeat.
import Debug "mo:core/Debug";
import Nat "mo:core/Nat";
import Time "mo:core/Time";
import Timer "mo:core/Timer";

persistent actor Timers {
  var ticks : Nat = 0;
  var shots : Nat = 0;
  var beats : Nat = 0;
  var lastShotAt : Int = 0;
  transient var recurring : ?Timer.TimerId = null;

  func tick() : async () { ticks += 1 };

  public func every(seconds : Nat) : async () {
    stopRecurring();
    recurring := ?Timer.recurringTimer<system>(#seconds seconds, tick);
  };

  func stopRecurring() {
    switch (recurring) {
      case (?id) Timer.cancelTimer(id);
      case null {};
    };
    recurring := null;
  };

  public func stop() : async () { stopRecurring() };

  public func once(seconds : Nat, weight : Nat) : async Nat {
    Timer.setTimer<system>(
      #seconds seconds,
      func() : async () {
        shots += weight;
        lastShotAt := Time.now();
        Debug.print("shot " # Nat.toText(weight));
      },
    );
  };

  // This timer's job writes and traps: the write must not last, and other timers go on.
  public func onceTrapping(seconds : Nat) : async Nat {
    Timer.setTimer<system>(
      #seconds seconds,
      func() : async () {
        shots += 1_000_000;
        assert false;
      },
    );
  };

  public func cancel(id : Nat) : async () { Timer.cancelTimer(id) };

  // Messages that do nothing but let time pass.
  public func nop() : async () {};

  public query func getTicks() : async Nat { ticks };
  public query func getShots() : async Nat { shots };
  public query func lastShot() : async Int { lastShotAt };
  public query func hasBeaten() : async Bool { beats > 0 };

  system func heartbeat() : async () { beats += 1 };
};
