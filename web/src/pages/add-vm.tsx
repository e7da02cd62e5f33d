export function AddVm() { return <h1>AddVm</h1>; }
