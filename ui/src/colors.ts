/** Text that names a fault. Airflow's own `fg.error` is too light for small text on white (contrast 3.8, 4.5 is required). */
export const ERROR_TEXT = { _dark: "#fca5a5", base: "#b91c1c" };
