"""System calls by name, as the sandbox's tests make them."""

from tts_search.grading import sandbox_child

NUMBERS = {  # of x86-64 and arm64
    **{"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138)},
    **{"rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424)},
    **{"pidfd_getfd": (438, 438), "fcntl": (72, 25), "ioctl": (16, 29), "prctl": (157, 167), "vhangup": (153, 58)},
    **{"mq_open": (240, 180), "mq_notify": (244, 184), "timer_create": (222, 107), "ptrace": (101, 117)},
    **{"process_vm_writev": (311, 271), "process_madvise": (440, 440), "process_mrelease": (448, 448)},
    **{"kcmp": (312, 272), "migrate_pages": (256, 238), "move_pages": (279, 239), "io_uring_setup": (425, 425)},
    **{"io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0), "setpriority": (141, 140)},
    **{"sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118)},
    **{"sched_setattr": (314, 274), "ioprio_set": (251, 30), "prlimit64": (302, 261), "add_key": (248, 217)},
    **{"request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241)},
    **{"userfaultfd": (323, 282), "fanotify_init": (300, 262), "unshare": (272, 97), "setns": (308, 268)},
    **{"shmat": (30, 196), "msgsnd": (69, 189), "semop": (65, 193), "flock": (73, 32), "memfd_create": (319, 279)},
    **{"clone": (56, 220), "clone3": (435, 435), "execveat": (322, 281), "socket": (41, 198), "connect": (42, 203)},
    **{"sendmsg": (46, 211), "sendto": (44, 206), "setsid": (112, 157), "setpgid": (109, 154), "setuid": (105, 146)},
    **{"socketpair": (53, 199), "openat": (257, 56), "openat2": (437, 437), "mount": (165, 40)},
}  # fmt: skip
BY_ARGUMENTS = ("kill", "tkill", "tgkill", "fcntl", "ioctl", "prctl", "sched_setaffinity", "prlimit64", "clone")
BY_ARGUMENTS += ("sendto", "socketpair", "openat")
MACHINES = tuple(sandbox_child._ARCHITECTURES)
