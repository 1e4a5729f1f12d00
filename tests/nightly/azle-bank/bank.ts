import { IDL, StableBTreeMap, call, canisterSelf, init, postUpgrade, query, trap, update } from 'azle';

export default class Bank {
    balances = new StableBTreeMap<string, bigint>(0);

    @init([IDL.Text])
    init(name: string): void {
        console.log('bank: init ' + name);
    }

    @postUpgrade([IDL.Text])
    upgraded(name: string): void {
        console.log('bank: post_upgrade ' + name);
    }

    @update([IDL.Text, IDL.Nat64], IDL.Nat64)
    deposit(account: string, amount: bigint): bigint {
        const sum = (this.balances.get(account) ?? 0n) + amount;
        this.balances.insert(account, sum);
        return sum;
    }

    @update([IDL.Text, IDL.Nat64], IDL.Nat64)
    async deposit_through_call(account: string, amount: bigint): Promise<bigint> {
        return await call<[string, bigint], bigint>(canisterSelf(), 'deposit', {
            paramIdlTypes: [IDL.Text, IDL.Nat64],
            returnIdlType: IDL.Nat64,
            args: [account, amount]
        });
    }

    @update([])
    trap_after_write(): void {
        this.balances.insert('alice', 1n);
        trap('after a write');
    }

    @update([])
    throw_after_write(): void {
        this.balances.insert('alice', 2n);
        throw new Error('thrown after a write');
    }

    @query([IDL.Text], IDL.Opt(IDL.Nat64))
    balance(account: string): [bigint] | [] {
        const sum = this.balances.get(account);
        return sum === undefined || sum === null ? [] : [sum];
    }

    @query([IDL.Nat32], IDL.Nat64)
    primes(limit: number): bigint {
        let count = 0n;
        for (let candidate = 2; candidate < limit; candidate++) {
            let prime = true;
            for (let divisor = 2; prime && divisor * divisor <= candidate; divisor++) {
                prime = candidate % divisor !== 0;
            }
            if (prime) count++;
        }
        return count;
    }

    @query([IDL.Nat32], IDL.Nat32)
    sort(length: number): number {
        let seed = 12345;
        const values: number[] = [];
        for (let i = 0; i < length; i++) {
            seed = (seed * 1103515245 + 12345) % 2147483648;
            values.push(seed);
        }
        values.sort((a, b) => a - b);
        return values[length >> 1];
    }
}
