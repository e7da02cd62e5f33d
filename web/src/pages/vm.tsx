export function VmPage({ name }: { name: string; tab: string }) { return <h1>{name}</h1>; }
