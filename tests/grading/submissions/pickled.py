# A pickle that would run a command if anybody loaded it.
# form: bytes 80049517000000000000008c05706f736978948c0673797374656d9493942e
# verdict: double=unattempted total=unattempted
# problem: This is a Python pickle
