// The counter's next version: keeps `value`, adds a field, and counts by two.
persistent actor Counter {
  var value : Nat = 0;
  var note : Text = "second version";

  public func inc() : async Nat {
    value += 2;
    value;
  };

  public func add(amount : Nat) : async Nat {
    value += amount;
    value;
  };

  public func setNote(text : Text) : async () { note := text };

  public query func get() : async Nat { value };
  public query func getNote() : async Text { note };
};
