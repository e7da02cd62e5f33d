/**
 * The three functions of the package `reflect-metadata` that @peculiar/x509 needs at import time. To be replaced by
 * that package once it is a dependency; until then this file must be imported before @peculiar/x509.
 */
type Reflection = {
  getMetadata?(key: unknown, target: object): unknown;
  getOwnMetadata?(key: unknown, target: object): unknown;
  defineMetadata?(key: unknown, value: unknown, target: object): void;
};

const reflection = Reflect as Reflection;

if (reflection.getMetadata === undefined) {
  const known = new WeakMap<object, Map<unknown, unknown>>();
  const own = (key: unknown, target: object) => known.get(target)?.get(key);
  reflection.getOwnMetadata = own;
  reflection.getMetadata = (key, target) => {
    for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
      if (known.get(at)?.has(key) === true) return own(key, at);
    }
    return undefined;
  };
  reflection.defineMetadata = (key, value, target) => {
    known.set(target, (known.get(target) ?? new Map<unknown, unknown>()).set(key, value));
  };
}
