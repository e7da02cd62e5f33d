export function EnableWizard() { return <h1>EnableWizard</h1>; }
